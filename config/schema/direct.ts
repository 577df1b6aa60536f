/** Schema of the routes to which the gateway responds itself: `routes[].response`, `routes[].redirect` and `routes[].files`. */
import type { Static } from 'typebox'
import { token } from '../../plugins/http-syntax.ts'
import { Names, Period, strict } from './kit.ts'
import type { PortalConfig } from './portal.ts'
import { Portal } from './portal.ts'
import Type from './type.ts'

/** Keys of a body that the configuration contains. */
export const bodyKeys = {
  body: Type.Optional(Type.String({ description: 'Body: a text.' })),
  json: Type.Optional(Type.Unknown({ description: 'Body: a value that is sent as JSON.' })),
  file: Type.Optional(
    Type.String({
      minLength: 1,
      description: 'Body: the bytes of a file of at most 1 MB, which is read when the configuration is loaded.'
    })
  ),
  contentType: Type.Optional(
    Type.String({
      pattern: '^[\\w!#$&^.+-]+/[\\w!#$&^.+-]+( *; *[\\w-]+=("[ !#-~]*"|[\\w!#$&^.+-]+))*$',
      expected: 'a media type such as text/html; charset=utf-8',
      description:
        'Content type. Default: `text/plain; charset=utf-8` for `body`, `application/json; charset=utf-8` for `json`, and by its name for `file`.'
    })
  )
}

export const FixedResponse = Type.Object(
  {
    status: Type.Integer({ minimum: 200, maximum: 599, default: 200, description: 'Status of the response.' }),
    headers: Type.Optional(
      Type.Unsafe<Record<string, string>>({
        type: 'object',
        expectedKey: 'a header name',
        patternProperties: { [token.source]: { type: 'string' } },
        ...strict,
        maxProperties: 64,
        description: 'Response headers.'
      })
    ),
    ...bodyKeys,
    etag: Type.Boolean({
      default: true,
      description: 'true: a response with status 200 has an entity tag, and a matching If-None-Match gets 304.'
    })
  },
  { ...strict, description: 'A fixed response, instead of `service`. See routes/direct.md.' }
)

export const Redirect = Type.Object(
  {
    to: Type.Optional(
      Type.String({
        pattern: '^(/|[Hh][Tt][Tt][Pp][Ss]?://)',
        expected: 'a path that starts with /, or a URL that starts with http:// or https://',
        description:
          'Path with parameters of `match.path` (`/v2/user/:id`, `/v2/*`), or a URL with such a path. A URL without a path keeps that of the request, changed by `routes[].path`.'
      })
    ),
    scheme: Type.Optional(
      Names(['https', 'http'], {
        description: 'Scheme of the target, at the host of the request; instead of a URL in `to`.'
      })
    ),
    port: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 65535,
        description: 'Port of the target, with `scheme`. Default: that of the scheme, 443 or 80.'
      })
    ),
    status: Type.Unsafe<301 | 302 | 303 | 307 | 308>({
      type: 'integer',
      enum: [301, 302, 303, 307, 308],
      default: 302,
      description:
        '301, 308: permanent, so clients and caches keep it. 302, 307: temporary. 303: the client sends a GET. After a 301 or 302, browsers turn a POST into a GET.'
    }),
    query: Names(['keep', 'drop'], {
      default: 'keep',
      description: 'keep: the query of the request is added to the target.'
    })
  },
  { ...strict, description: 'A redirect, instead of `service`. See routes/direct.md.' }
)

export const Files = Type.Object(
  {
    root: Type.String({ minLength: 1, description: 'Folder, relative to the configuration.' }),
    index: Type.String({
      pattern: '^[^/\\\\.][^/\\\\]*$',
      expected: 'the name of a file',
      default: 'index.html',
      description: 'File that is sent for a folder.'
    }),
    spa: Type.Boolean({
      default: false,
      description:
        'true: page loads of paths without a file get the `index` of `root`, for applications that route in the browser. All other requests get 404.'
    }),
    maxAge: Type.Optional(
      Period(
        'Time for which clients and caches use a file without asking again. Default: they ask each time. `index` is always asked for.'
      )
    ),
    immutable: Type.Boolean({
      default: false,
      description:
        'true: with `maxAge`, files never change under their names, so that a reload of the page does not ask for them either.'
    })
  },
  { ...strict, description: 'Files of a folder, instead of `service`. See routes/direct.md.' }
)

export type FilesConfig = Static<typeof Files>
export type FixedResponseConfig = Static<typeof FixedResponse>
export type RedirectConfig = Static<typeof Redirect>

/** Keys of a route by which the gateway responds itself. */
export const directKeys = {
  response: Type.Optional(FixedResponse),
  redirect: Type.Optional(Redirect),
  files: Type.Optional(Files),
  portal: Type.Optional(Portal)
}

/** Options of a route to which the gateway responds itself; a route has at most one of them. */
export interface DirectOptions {
  readonly response?: FixedResponseConfig
  readonly redirect?: RedirectConfig
  readonly files?: FilesConfig
  readonly portal?: PortalConfig
}
