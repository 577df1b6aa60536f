/** Media types: those of files by the end of their names, and doubts about those in the configuration. */
import { didYouMean } from './nearest.ts'

const types: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  htm: 'text/html; charset=utf-8',
  txt: 'text/plain; charset=utf-8',
  css: 'text/css; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  mjs: 'text/javascript; charset=utf-8',
  json: 'application/json; charset=utf-8',
  webmanifest: 'application/manifest+json',
  xml: 'application/xml',
  yaml: 'application/yaml',
  yml: 'application/yaml',
  md: 'text/markdown; charset=utf-8',
  csv: 'text/csv; charset=utf-8',
  pdf: 'application/pdf',
  svg: 'image/svg+xml',
  png: 'image/png',
  jpg: 'image/jpeg',
  jpeg: 'image/jpeg',
  gif: 'image/gif',
  webp: 'image/webp',
  ico: 'image/x-icon',
  wasm: 'application/wasm'
}

/** Returns the media type of a file; null if its name does not tell it. */
export function mediaTypeOf(file: string): string | null {
  const [, extension = ''] = /\.(\w+)$/.exec(file) ?? []
  const key = extension.toLowerCase()
  return Object.hasOwn(types, key) ? types[key]! : null
}

/** Top-level types that are registered with IANA, and one that is in common use. */
const topLevelTypes = [
  'application', 'audio', 'example', 'font', 'haptics', 'image', 'message', 'model', 'multipart', 'text', 'video', 'chemical'
] // biome-ignore format: a list

/** Returns a warning if the first part of a media type or range is none that messages have; null if it is one. */
export function mediaTypeDoubt(text: string): string | null {
  const [type = ''] = text.toLowerCase().split('/', 1)
  if (type === '*' || type.startsWith('x-') || topLevelTypes.includes(type)) return null
  return `no registered media type begins with "${type}/"${didYouMean(type, topLevelTypes)}`
}
