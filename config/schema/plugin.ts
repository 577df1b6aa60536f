/** An entry of `plugins`: which module it is, and where its hooks run. */
import { basename, extname } from 'node:path'
import Type from 'typebox'
import { DurationOrZero, Names, strict } from './kit.ts'

export const Plugin = Type.Object(
  {
    path: Type.Optional(Type.String({ description: 'Module file, relative to this config file.' })),
    package: Type.Optional(Type.String({ description: 'Package name.' })),
    name: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          'Name in `routes[].plugins`, the log, `routes` and `explain`. Default: the package name, or the file name without its extension.'
      })
    ),
    options: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
    scope: Names(['all', 'routes'], {
      default: 'all',
      description: 'all: its hooks run on every request. routes: on the routes that name it in `routes[].plugins`.'
    }),
    order: Type.Optional(
      Type.Object(
        {
          before: Type.Optional(
            Type.String({ description: 'Name of an edge concern, as it is written under `edge`.' })
          ),
          after: Type.Optional(Type.String({ description: 'Name of an edge concern; either this or `before`.' }))
        },
        {
          ...strict,
          minProperties: 1,
          description:
            'Position of its hooks among the edge concerns of a route; of a concern of the mesh, its position among those of the mesh. Without: hooks of `scope: all` run before those of routes, hooks of `scope: routes` after all edge concerns.'
        }
      )
    ),
    prefix: Type.Optional(
      Type.String({
        pattern: '^/',
        expected: 'a path that starts with /',
        description:
          'Path under which the plugin is registered, in a Fastify context of its own: its hooks, parsers and decorators are for its own routes alone.'
      })
    ),
    guarded: Type.Boolean({
      default: false,
      description:
        'true: the top-level `edge` applies to the routes that the plugin adds and to its not-found handler, as it does to configured routes. A route changes it by its own `config.edge`.'
    }),
    provides: Type.Optional(
      Type.Array(Names(['consumer']), {
        minItems: 1,
        description:
          'consumer: the plugin sets `request.consumer`, so that concerns can go by the consumer on the routes of the plugin.'
      })
    ),
    routeConfig: Type.Optional(
      Type.Array(Type.String({ minLength: 1 }), {
        minItems: 1,
        description:
          'Keys of `routes[].config` that the plugin reads, beside those that its module declares. Their values are not checked.'
      })
    ),
    hookTimeout: DurationOrZero(
      'Longest time for which one hook of the plugin may keep a request, besides the time that the client takes for its body; then the request fails with 500. The same for an error handler that does not respond: then the next one is called, at last the gateway. The same for a stream that an `onSend` hook returns and that neither reads, sends nor ends. 0: any.',
      { default: '30s' }
    )
  },
  strict
)

/** Returns the name of a plugin: in routes, in the log and in messages. */
export function pluginName(plugin: { name?: string; package?: string; path?: string }): string {
  const { name, package: installed, path = '' } = plugin
  return name ?? installed ?? basename(path, extname(path))
}
