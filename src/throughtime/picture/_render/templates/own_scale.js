// Codes of a logarithmic scale are shifted until the largest is at its end.
for (const source of images) {
    source.codes ??= source.data.image
    const image = !own.active ? source.codes : source.codes.map(codes => {
        let most = -1
        for (const code of codes) if (code > most) most = code
        const moved = new codes.constructor(codes, codes.shape)
        if (most >= 0) for (let i = 0; i < moved.length; i++) if (moved[i] >= 0) moved[i] += top - most
        return moved
    })
    source.data = {...source.data, image}
}
for (const [shared, relative] of bars) { shared.visible = !own.active; relative.visible = own.active }
