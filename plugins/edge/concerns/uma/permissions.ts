/** Permissions that a route asks for, some of which name the path or the method of the request. */
import type { Folding, PathReadings, ReadPath } from '../../../../config/path-reading.ts'
import { fold } from '../../../../config/path-reading.ts'

export interface Permission {
  /** `resource#scope`, `resource` or `#scope`. */
  readonly text: string
  /** True if the resource is a URI. */
  readonly isUri: boolean
  /** True if the text depends on the request: Keycloak may know no such resource or scope, which is a refusal. */
  readonly isOfRequest: boolean
}

/** Matches characters in a path that would end the resource in a permission, and those that no URI of a resource has. */
const unsafe = /[#\p{Cc}]/u

/**
 * Returns a function for the permissions of a request; null for a path that cannot be a resource. Where services may read the
 * path in several ways, by `listen.paths`, the permissions for each of them are needed: otherwise a client could choose the
 * spelling for which Keycloak grants most.
 */
export function permissionsOf(templates: readonly string[], paths: PathReadings) {
  const asked = templates.map((text) => ({
    text,
    isUri: text.includes('{path}'),
    isOfRequest: /\{(path|method)\}/.test(text)
  }))
  if (!asked.some(({ isOfRequest }) => isOfRequest)) return (): readonly Permission[] => asked
  const usesPath = asked.some(({ isUri }) => isUri)
  const literal: Folding = { case: paths.case === 'ignore', dot: paths.trailingDot === 'ignore' }
  const widest: Folding = { case: paths.case !== 'distinct', dot: paths.trailingDot !== 'distinct' }
  const texts = ({ segments, others }: ReadPath): readonly string[] => {
    const joined = (read: readonly string[], folding: Folding) =>
      `/${read.map((each) => fold(each, folding)).join('/')}`
    return [
      ...new Set([joined(segments, literal), joined(segments, widest), ...others.map((each) => joined(each, widest))])
    ]
  }
  return (method: string, path: () => ReadPath | null): readonly Permission[] | null => {
    let uris: readonly string[] = []
    if (usesPath) {
      const read = path()
      if (read === null) return null
      uris = texts(read)
      if (uris.some((uri) => unsafe.test(uri))) return null
    }
    return asked.flatMap((permission) => {
      const text = permission.text.replaceAll('{method}', method)
      if (!permission.isUri) return [{ ...permission, text }]
      return uris.map((uri) => ({ ...permission, text: text.replaceAll('{path}', () => uri) }))
    })
  }
}
