// The chart: results as bars, one group per scenario.
import type { Outcome } from './report.ts'

const width = 760
const label = 250
const bar = 16
const room = width - label - 60

interface Bar {
  readonly name: string
  readonly value: number
  readonly text: string
}

export function chart(outcomes: readonly Outcome[]): string {
  const most = Math.max(1, ...outcomes.flatMap(({ rows }) => rows.map(({ ratio }) => ratio.median)))
  const parts: string[] = []
  let y = 8
  for (const { scenario, reference, rows, idle } of outcomes) {
    const title =
      scenario.idle === undefined
        ? `${scenario.name}: CPU time per request, ${reference} = 1`
        : `${scenario.name}: KB of memory per connection`
    const bars: Bar[] = [
      ...rows.map(({ subject, ratio }) => ({ name: subject, value: ratio.median, text: ratio.median.toFixed(2) })),
      ...idle.map(({ subject, bytesPerConnection }) => ({
        name: subject,
        value: bytesPerConnection,
        text: (bytesPerConnection / 1024).toFixed(1)
      }))
    ]
    const scale = room / (scenario.idle === undefined ? most : Math.max(1, ...bars.map(({ value }) => value)))
    parts.push(text(8, y + 12, title, 'font-weight="bold"'))
    y += 20
    const top = y
    for (const each of bars) {
      parts.push(drawn(each, y, Math.max(0, each.value * scale)))
      y += bar + 4
    }
    if (scenario.idle === undefined) {
      const x = (label + scale).toFixed(1)
      parts.push(`<line x1="${x}" x2="${x}" y1="${top - 2}" y2="${y}" stroke="#777" stroke-dasharray="3"/>`)
    }
    y += 12
  }
  const [open, close] = ['<svg xmlns="http://www.w3.org/2000/svg"', '</svg>\n']
  const background = `<rect width="${width}" height="${y}" fill="#fff"/>`
  return `${open} viewBox="0 0 ${width} ${y}" font-family="sans-serif" font-size="12"><title>CPU time per request, as a ratio</title>${background}${parts.join('')}${close}`
}

function drawn({ name, value, text: shown }: Bar, y: number, length: number): string {
  const fill = name.startsWith('jingwei') ? '#2a7f9e' : '#b9b4a6'
  return (
    text(label - 8, y + 12, name, 'text-anchor="end"') +
    `<rect x="${label}" y="${y}" width="${length.toFixed(1)}" height="${bar}" fill="${fill}"><title>${value}</title></rect>` +
    text(label + length + 6, y + 12, shown)
  )
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x.toFixed(1)}" y="${y}" ${attributes}>${content.replaceAll('&', '&amp;').replaceAll('<', '&lt;')}</text>`
}
