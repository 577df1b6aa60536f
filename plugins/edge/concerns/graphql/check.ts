/** The checks of `edge.graphql`. */
import type { Checked } from '../../../../config/concern.ts'
import { Documents } from './document.ts'
import { readManifest } from './manifest.ts'
import type { GraphqlOptions } from './options.ts'

export function checkGraphql(options: GraphqlOptions, at: string, { report, absolute }: Checked): void {
  const { maxCost, fields, persistedQueries } = options
  if (maxCost === false && fields !== undefined && report.usable(`${at}/fields`)) {
    report.fault(`${at}/fields`, 'has no effect with "maxCost: false"', 'key')
  }
  const place = `${at}/persistedQueries`
  if (persistedQueries === undefined || !report.usable(place)) return
  const { manifest, only, automatic } = persistedQueries
  if (!report.usable(`${place}/manifest`)) return
  if (manifest === undefined) {
    if (only) report.fault(`${place}/only`, 'needs "manifest": without one, every query would be refused')
    else if (!automatic) report.fault(place, 'needs "manifest", "automatic" or both')
    return
  }
  if (only && automatic) {
    report.fault(
      `${place}/automatic`,
      'has no effect with "only: true", which refuses queries outside the manifest',
      'key'
    )
  }
  checkManifest(absolute(manifest), options, (message) => report.fault(`${place}/manifest`, message))
}

/** Reports a manifest that cannot be read, and its first query that is none. */
function checkManifest(path: string, options: GraphqlOptions, fault: (message: string) => void): void {
  try {
    const documents = new Documents(options)
    const { byId } = readManifest(path)
    if (byId.size === 0) throw new Error(`${path}: has no queries`)
    for (const [id, query] of byId) {
      try {
        documents.measure(query, null)
      } catch (cause) {
        throw new Error(`${path}: the query "${id}" cannot be used: ${(cause as Error).message}`, { cause })
      }
    }
  } catch (error) {
    fault((error as Error).message)
  }
}
