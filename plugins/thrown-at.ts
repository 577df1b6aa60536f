/** Finds the place in a plugin's own files where an error was thrown, for messages about the plugin. */
import { realpathSync } from 'node:fs'
import { dirname, join, relative, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { home } from './home.ts'

/** The module of a plugin: an absolute path, or the name of a package. */
export interface PluginSource {
  readonly path?: string | undefined
  readonly package?: string | undefined
}

interface Frame {
  readonly file: string
  readonly line: string
  readonly column: string
}

/** Maximum depth of the chain of causes, which may be circular. */
const mostCauses = 5

/** Returns the message of an error with the place in the plugin where it was thrown: `no luck (tenant.ts:12:33)`. */
export function textWithPlace(error: unknown, source: PluginSource): string {
  if (!(error instanceof Error)) return String(error)
  const place = thrownAt(error, source)
  if (place !== null) return `${error.message} (${place})`
  const [first] = framesOf(error)
  // Node keeps the place of a syntax error in an ES module for the output of a process that it ends.
  const isHidden = error instanceof SyntaxError && source.path !== undefined
  if (isHidden) return `${error.message} ("node ${source.path}" shows where)`
  // An error of the gateway itself, or with a code, says enough.
  const isForeign = first !== undefined && !first.file.startsWith(home + sep) && !('code' in error)
  return isForeign ? `${error.message} (JINGWEI_LOG_LEVEL=debug shows where)` : error.message
}

/** Returns the first place in the files of a plugin, or null if the error has none. */
function thrownAt(error: Error, source: PluginSource): string | null {
  const shown = shownIn(source)
  let each: unknown = error
  for (let count = 0; each instanceof Error && count < mostCauses; count++) {
    for (const { file, line, column } of framesOf(each)) {
      const name = shown(file)
      if (name !== null) return `${name}:${line}:${column}`
    }
    each = each.cause
  }
  return null
}

/** Returns a function that returns the name of a file of the plugin, and null for any other file. */
function shownIn({ path, package: name }: PluginSource): (file: string) => string | null {
  if (path === undefined) {
    const folder = join(sep, 'node_modules', name!, sep)
    return (file) => {
      const at = file.lastIndexOf(folder)
      const below = file.slice(at + folder.length)
      return at < 0 || isInPackage(below) ? null : join(name!, below)
    }
  }
  const own = real(path)
  const folder = dirname(own)
  const hasGateway = `${home}${sep}`.startsWith(`${folder}${sep}`)
  return (file) => {
    const below = relative(folder, file)
    if (file === own) return below
    const isOutside = below.startsWith('..') || isInPackage(below)
    return isOutside || (hasGateway && file.startsWith(home + sep)) ? null : below
  }
}

const isInPackage = (path: string) => path.split(sep).includes('node_modules')

/** Returns the path that Node loads a module from. */
function real(path: string): string {
  try {
    return realpathSync(path)
  } catch {
    return path
  }
}

/** Returns the places of a stack in files. A syntax error has its place above the message: `FILE:LINE`, the line, a caret. */
function framesOf({ stack }: Error): Frame[] {
  if (typeof stack !== 'string') return []
  const lines = stack.split('\n')
  const head = /^(file:\/\/.*|\/.*|[A-Za-z]:\\.*):(\d+)$/.exec(lines[0]!)
  const caret = lines.find((text) => /^\s*\^+\s*$/.test(text))
  const syntax = head === null || caret === undefined ? [] : [frame(head[1]!, head[2]!, `${caret.indexOf('^') + 1}`)]
  const calls = lines.flatMap((text) => {
    const call = /^\s+at (?:.*\(|async )?((?:file:\/\/|\/|[A-Za-z]:\\).*?):(\d+):(\d+)\)?$/.exec(text)
    return call === null ? [] : [frame(call[1]!, call[2]!, call[3]!)]
  })
  return [...syntax, ...calls]
}

function frame(place: string, line: string, column: string): Frame {
  return { file: place.startsWith('file://') ? fileURLToPath(place.replace(/\?.*$/, '')) : place, line, column }
}
