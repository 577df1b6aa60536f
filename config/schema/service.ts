/** Schema of `services`, without the keys of the sources of instances, which each source defines itself, but for `instances`. */
import { Either, Name, strict, Text, Url } from './kit.ts'
import Type from './type.ts'

/** A selection of instances by tag and meta, which a route can choose. */
export const Subset = Type.Object(
  {
    tags: Type.Optional(Type.Array(Text, { description: 'Tags that an instance must have, all of them.' })),
    meta: Type.Optional(
      Type.Record(Type.String(), Type.String(), { description: 'Metadata that an instance must have, all of it.' })
    )
  },
  strict
)

const SidecarUrl = Url(
  'http',
  'URL of the local sidecar listener for the service; used with `mode: sidecar` and with `mesh: false`.'
)

const InstanceUrl = Url(
  'http',
  'Address of an instance: scheme, host and port. It may have a path, the same for all instances: see `basePath`.'
)

/** The base path of a service. */
const BasePath = Type.String({
  pattern: '^/[^?#\\s]*[^/?#\\s]$',
  expected: 'a path that starts with "/" and does not end with "/"',
  description:
    'Path before that of every call: with `/v1`, a call of `/orders` gets `/v1/orders`. Default: the path of `instances`.'
})

/** A fixed list of instances. */
export const Instances = Type.Array(
  Either(
    { type: 'string' },
    InstanceUrl,
    Type.Object({ url: InstanceUrl, weight: Type.Integer({ minimum: 0, maximum: 65535, default: 1 }) }, strict)
  ),
  { minItems: 1 }
)

/** A service, without the keys of sources. */
export const Service = Type.Object(
  {
    sidecar: Type.Optional(SidecarUrl),
    basePath: Type.Optional(BasePath),
    subsets: Type.Optional(Type.Record(Name, Subset, strict))
  },
  strict
)
