import type { Static } from 'typebox'
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { mediaTypeDoubt } from '../../../../config/media-types.ts'
import { Names, Size, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { encodings } from './accept-encoding.ts'

/** Content types that are compressed by default. Images, video, archives and most fonts are compressed already. */
export const defaultTypes = [
  'text/*',
  'application/json',
  'application/*+json',
  'application/x-ndjson',
  'application/javascript',
  'application/x-javascript',
  'application/xml',
  'application/*+xml',
  'application/wasm',
  'application/yaml',
  'image/svg+xml',
  'image/bmp',
  'image/vnd.microsoft.icon',
  'image/x-icon',
  'font/ttf',
  'font/otf',
  'application/vnd.ms-fontobject'
]

/** Levels that are a good trade between CPU and bytes for responses that are compressed once for each client. */
export const defaultLevels = { zstd: 3, br: 4, gzip: 6 } as const

const Level = (name: string, minimum: number, maximum: number, value: number) =>
  Type.Integer({ minimum, maximum, default: value, description: `Level of ${name}.` })

export const Compression = Type.Object(
  {
    encodings: Type.Array(Names(encodings), {
      minItems: 1,
      uniqueItems: true,
      default: [...encodings],
      description:
        "Encodings, in the order of preference among those that the client's `Accept-Encoding` weighs equally."
    }),
    types: Type.Array(
      Type.String({
        pattern: '^([A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]*\\*?[A-Za-z0-9!#$&^_.+-]*|\\*/\\*)$',
        expected: 'a content type, such as application/json, text/* or application/*+json'
      }),
      {
        minItems: 1,
        maxItems: 100,
        default: defaultTypes,
        description:
          'Content types that are compressed. `*` stands for any part of the subtype. `text/event-stream` and types of gRPC are never compressed.'
      }
    ),
    minSize: Size(
      'Smallest body that is compressed, by its `Content-Length`. Bodies of unknown length are compressed.',
      {
        default: '1kb'
      }
    ),
    level: Type.Object(
      {
        zstd: Level('zstd', 1, 9, defaultLevels.zstd),
        br: Level('br', 0, 11, defaultLevels.br),
        gzip: Level('gzip', 1, 9, defaultLevels.gzip)
      },
      {
        ...strict,
        default: {},
        description: 'Levels of compression: higher ones take more CPU and memory, and make smaller bodies.'
      }
    ),
    authenticated: Type.Boolean({
      default: false,
      description:
        'Also compress responses to requests with a cookie, `Authorization`, a consumer or a client certificate, or on a route with `forwardAuth` or `authorizer`, that are not public by their `Cache-Control`. Such responses can be open to the BREACH attack.'
    })
  },
  { ...strict, description: "Compresses responses, as the client's `Accept-Encoding` allows." }
)

export type Options = Static<typeof Compression>

export function check({ types, encodings: offered, level }: Options, at: string, { report }: Checked): void {
  if (!report.sound(at)) return
  for (const [index, type] of types.entries()) {
    const what =
      type.toLowerCase() === 'text/event-stream' ? 'events' : isGrpc(type.toLowerCase()) ? 'messages of gRPC' : null
    const doubt = mediaTypeDoubt(type)
    if (what !== null) report.fault(pointer(at, 'types', index), `${what} are never compressed: remove "${type}"`)
    else if (doubt !== null) report.warn(pointer(at, 'types', index), doubt)
  }
  if (level.br >= 10 && offered.includes('br')) {
    const advice = 'write a level up to 6 for responses that are compressed for each client'
    const message = `level ${level.br} takes a thread about a second for each megabyte, and other work waits: ${advice}`
    report.warn(pointer(at, 'level', 'br'), message)
  }
  for (const name of encodings) {
    if (!offered.includes(name) && level[name] !== undefined && level[name] !== defaultLevels[name])
      report.fault(pointer(at, 'level', name), `"encodings" does not have ${name}: add it, or remove its level`)
  }
}

/** Returns whether a content type is one of gRPC or gRPC-Web, whose messages have their own compression. */
const isGrpc = (type: string): boolean => /^application\/grpc(?:$|[+-])/.test(type)

/** Returns the test for the content types in a list. */
export function typeTest(types: readonly string[]): (type: string) => boolean {
  const lower = types.map((type) => type.toLowerCase())
  const exact = new Set(lower.filter((type) => !type.includes('*')))
  const patterns = lower
    .filter((type) => type.includes('*'))
    .map((type) => (type === '*/*' ? ['', ''] : type.split('*'))) as [string, string][]
  return (type) =>
    type !== 'text/event-stream' &&
    !isGrpc(type) &&
    (exact.has(type) ||
      patterns.some(
        ([start, end]) => type.length >= start.length + end.length && type.startsWith(start) && type.endsWith(end)
      ))
}
