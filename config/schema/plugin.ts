/** Schema of an entry of `plugins`: its module, its options, and the routes on which its hooks run. */
import { basename, extname } from 'node:path'
import { DurationOrZero, Names, strict } from './kit.ts'
import Type from './type.ts'

export const Plugin = Type.Object(
  {
    path: Type.Optional(Type.String({ description: "Module file, relative to the configuration file's folder." })),
    package: Type.Optional(Type.String({ description: 'npm package, instead of `path`.' })),
    name: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          'Name of the plugin in `routes[].plugins`, in logs, and in the output of `routes` and `explain`. Default: the package name, or the file name without its extension.'
      })
    ),
    options: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
    scope: Names(['all', 'routes'], {
      default: 'all',
      description:
        'all: its hooks run on all routes. routes: its hooks run on the routes that list it in `routes[].plugins`.'
    }),
    order: Type.Optional(
      Type.Object(
        {
          before: Type.Optional(Type.String({ description: 'Name of an edge concern: its key under `edge`.' })),
          after: Type.Optional(Type.String({ description: 'Name of an edge concern. Set either `after` or `before`.' }))
        },
        {
          ...strict,
          minProperties: 1,
          description:
            'Position of the hooks among the edge concerns of a route. For a mesh concern: its position among the mesh concerns. Default: hooks with `scope: all` run before the edge concerns, hooks with `scope: routes` after them.'
        }
      )
    ),
    prefix: Type.Optional(
      Type.String({
        pattern: '^/',
        expected: 'a path that starts with /',
        description:
          'Path prefix under which the plugin is registered, in an encapsulated Fastify context: its hooks, parsers and decorators apply only to its own routes.'
      })
    ),
    guarded: Type.Boolean({
      default: false,
      description:
        'true: the top-level `edge` also applies to the routes that the plugin adds and to its not-found handler. Such a route overrides it by its own `config.edge`.'
    }),
    provides: Type.Optional(
      Type.Array(Names(['consumer']), {
        minItems: 1,
        description:
          'consumer: the plugin sets `request.consumer`, so concerns on its routes may use it (`by: consumer`).'
      })
    ),
    routeConfig: Type.Optional(
      Type.Array(Type.String({ minLength: 1 }), {
        minItems: 1,
        description:
          'Keys of `routes[].config` that the plugin reads, in addition to those that its module declares. Their values are not checked.'
      })
    ),
    hookTimeout: DurationOrZero(
      'Longest time of one hook on one request; after it the request fails with 500. Time in which the client sends its body does not count. The same time applies to an error handler until it responds (then the next handler is called, at last that of the gateway), and to a stream returned by `onSend` that neither reads, sends nor ends. 0: unlimited.',
      { default: '30s' }
    )
  },
  strict
)

/** Returns the name by which routes, logs and messages refer to a plugin. */
export function pluginName(plugin: { name?: string; package?: string; path?: string }): string {
  const { name, package: installed, path = '' } = plugin
  return name ?? installed ?? basename(path, extname(path))
}
