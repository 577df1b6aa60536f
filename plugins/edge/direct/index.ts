/** Routes to which the gateway responds itself: sets their handlers, as the bridge does for routes with services. */
import type { FastifyInstance, RouteHandlerMethod } from 'fastify'
import fp from 'fastify-plugin'
import { directKindOf } from '../../../config/direct-routes.ts'
import type { PathPattern } from '../../../config/path-pattern.ts'
import type { Config, RouteConfig } from '../../../config/schema.ts'
import { attach, setHandler } from '../attach.ts'
import { Peers } from '../protocol/peers.ts'
import { isSecure } from '../protocol/secure.ts'
import { fixedResponse } from './fixed.ts'
import type { ClientTarget } from './location.ts'
import { RedirectLoop, redirection } from './location.ts'

export default fp<Config>(
  async (fastify, config) => {
    if (!config.routes.some((route) => directKindOf(route) !== null)) return
    const peers = new Peers(config)
    const files = config.routes.some((route) => route.files !== undefined) ? await filesOf(fastify) : null
    fastify.addHook('onRoute', (routeOptions) => {
      const { route, matchedPath, preflightFor, ownPath } = routeOptions.config ?? {}
      // Concerns respond to preflights, and on their own paths.
      if (route === undefined || matchedPath === undefined || preflightFor !== undefined || ownPath !== undefined)
        return
      const handler = handlerOf(route, matchedPath)
      if (handler === null) return
      if (route.files !== undefined) attach(routeOptions, 'onError', files!.removeCacheControl as never)
      setHandler(routeOptions, handler)
    })

    function handlerOf(route: RouteConfig, pattern: PathPattern): RouteHandlerMethod | null {
      if (route.response !== undefined) return fixedResponse(route.response)
      if (route.files !== undefined)
        return files!.files(route, pattern, config.listen.paths, fastify.edgeOrder.isGuarded(route))
      if (route.redirect === undefined) return null
      const { status } = route.redirect
      const locationOf = redirection(route, pattern, config.listen.paths)
      return function redirect(request, reply) {
        const { raw } = request
        const target: ClientTarget = {
          url: raw.url!,
          host: (raw.headers[':authority'] as string | undefined) ?? raw.headers.host ?? '',
          scheme: isSecure(raw, peers) ? 'https' : 'http'
        }
        const { location, isLoop } = locationOf(target)
        if (isLoop) throw new RedirectLoop()
        request.isOwnResponse = true
        reply.code(status).header('location', location).send()
        return reply
      }
    }
  },
  { name: 'jingwei-direct', fastify: '5.x' }
)

/** Loads what sends files. @fastify/static adds no route, only `reply.sendFile`, and looks for `FILE.br` and `FILE.gz`. */
async function filesOf(fastify: FastifyInstance) {
  const [{ default: fastifyStatic }, files] = await Promise.all([import('@fastify/static'), import('./files.ts')])
  // Present if a user's plugin has registered it.
  if (fastify.hasReplyDecorator('sendFile')) return files
  await fastify.register(fastifyStatic, { serve: false, preCompressed: true, etag: true, lastModified: true })
  return files
}
