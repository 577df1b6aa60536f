// The figures as a Markdown table, and the ratios as a bar chart.
export interface Row {
  readonly scenario: string
  readonly subject: string
  readonly cpuUs: number
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly peakBytes: number
  readonly ratio: number
}

export function table(rows: readonly Row[]): string {
  const head =
    '| scenario | subject | CPU µs/request | ratio | requests/s | p50 ms | p99 ms | peak MB |\n|---|---|--:|--:|--:|--:|--:|--:|\n'
  const line = (row: Row) =>
    `| ${row.scenario} | ${row.subject} | ${row.cpuUs.toFixed(1)} | **${row.ratio.toFixed(2)}** | ${Math.round(row.perSecond)} | ` +
    `${row.p50Ms.toFixed(2)} | ${row.p99Ms.toFixed(2)} | ${Math.round(row.peakBytes / 1024 / 1024)} |\n`
  return head + rows.map(line).join('')
}

const width = 760
const label = 200
const bar = 16

/** Bars of the ratio, a group a scenario; the baseline is the line at 1. */
export function chart(rows: readonly Row[], baseline: string): string {
  const scenarios = [...new Set(rows.map((row) => row.scenario))]
  const most = Math.max(1, ...rows.map((row) => row.ratio))
  const scale = (width - label - 60) / most
  const parts: string[] = []
  let y = 10
  for (const scenario of scenarios) {
    parts.push(`<text x="0" y="${y + 12}" font-weight="bold">${scenario}</text>`)
    y += 20
    for (const row of rows.filter((each) => each.scenario === scenario)) {
      const fill = row.subject.startsWith('jingwei') ? '#2a7f9e' : '#b9b4a6'
      const length = (row.ratio * scale).toFixed(1)
      parts.push(
        `<text x="${label - 8}" y="${y + 12}" text-anchor="end">${row.subject}</text>` +
          `<rect x="${label}" y="${y}" width="${length}" height="${bar}" fill="${fill}"/>` +
          `<text x="${label + Number(length) + 6}" y="${y + 12}">${row.ratio.toFixed(2)}</text>`
      )
      y += bar + 4
    }
    y += 8
  }
  const one = label + scale
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y + 20}" font-family="sans-serif" font-size="12">` +
    `<line x1="${one}" x2="${one}" y1="0" y2="${y}" stroke="#888" stroke-dasharray="3"/>${parts.join('')}` +
    `<text x="${one}" y="${y + 14}" text-anchor="middle">1 = ${baseline}</text></svg>\n`
  )
}
