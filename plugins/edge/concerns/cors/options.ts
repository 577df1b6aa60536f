import type { Static } from 'typebox'
import { DurationOrZero, Either, HeaderName, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'

export const Cors = Type.Object(
  {
    origin: Either({ type: 'string' }, Text, Type.Array(Text, { minItems: 1 }), {
      description:
        'Allowed origins: `"*"` (all), `https://app.example.com`, `https://*.example.com` (any name below it), `http://localhost:*` (any port), or a regular expression `/^…$/`. A WebSocket handshake from another origin is refused.'
    }),
    methods: Type.Optional(
      Type.Array(Type.String({ pattern: '^([A-Z][A-Z-]*|\\*)$', expected: 'a method in capitals, or *' }), {
        description: "Methods that the response to a preflight allows. Default: the route's methods."
      })
    ),
    allowedHeaders: Type.Optional(
      Type.Array(HeaderName('A header, or `*`.'), {
        description: 'Request headers that the response to a preflight allows. Default: those that it asks for.'
      })
    ),
    exposedHeaders: Type.Optional(Type.Array(HeaderName('A header, or `*`.'))),
    credentials: Type.Boolean({
      default: false,
      description: 'Lets scripts send cookies. With origin `"*"`, the response names the origin of the request.'
    }),
    privateNetwork: Type.Boolean({
      default: false,
      description:
        'Lets pages of public sites call a gateway in a private network: `Access-Control-Allow-Private-Network`.'
    }),
    maxAge: Type.Optional(DurationOrZero('Time for which a browser may cache the response to a preflight.'))
  },
  strict
)

export type CorsOptions = Static<typeof Cors>
