/** Files of a folder, `routes[].files`, sent by @fastify/static. */
import type { Stats } from 'node:fs'
import { realpath, stat } from 'node:fs/promises'
import { join, sep } from 'node:path'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest, RouteHandlerMethod } from 'fastify'
import type { PathPattern } from '../../../config/path-pattern.ts'
import { belowMount } from '../../../config/path-pattern.ts'
import type { PathReadings } from '../../../config/path-reading.ts'
import type { RouteConfig } from '../../../config/schema.ts'
import { targetPath } from '../protocol/target-path.ts'
import { localPath } from './location.ts'

const NoFile = createError('JW_NO_FILE', 'There is no such file', 404)
const WrongMethod = createError('JW_METHOD_NOT_ALLOWED', 'Files are only read: GET or HEAD', 405)

/**
 * Returns the handler that sends files. `reply.sendFile` is that of @fastify/static, without routes of its own. `isGuarded`:
 * concerns of the route decide who gets the files.
 */
export function files(
  route: RouteConfig,
  pattern: PathPattern,
  paths: PathReadings,
  isGuarded: boolean
): RouteHandlerMethod {
  const { root, index, spa } = route.files!
  const rewrite = targetPath(route, pattern, paths)
  const cacheFor = cacheRules(route, isGuarded)
  let realRoot: string | null = null
  const isBelowRoot = (file: string) => realRoot !== null && file.startsWith(realRoot)

  /** Refuses what a symbolic link leads to outside of the folder, and what is no file: the end of a pipe never comes. */
  const onFile = async (file: string, stats: Stats): Promise<void> => {
    if (!stats.isFile()) throw new NoFile()
    const real = await realpath(file)
    if (isBelowRoot(real)) return
    // A deployment may have made the root a link to another folder.
    const folder = await realpath(root)
    realRoot = folder.endsWith(sep) ? folder : folder + sep
    if (!isBelowRoot(real)) throw new NoFile()
  }

  const send = (request: FastifyRequest, reply: FastifyReply, path: string): void => {
    request.isOwnResponse = true
    reply.header('cache-control', cacheFor(request, path.endsWith(`/${index}`)))
    reply.sendFile(path, root, { onFile, cacheControl: false, dotfiles: 'allow', index: false })
  }

  const pathOf = (own: string) => filePath(rewrite === null ? belowMount(pattern, own) : rewrite(own))

  /** Returns whether the folder of a path without a slash is also that of the path with one, on this route. */
  const isSame = (own: string, path: string) =>
    !path.endsWith('/') || (pattern.end !== 'whole' && pathOf(`${own}/`) === path)

  return async function sendFiles(request, reply) {
    const { raw } = request
    if (raw.method !== 'GET' && raw.method !== 'HEAD') {
      reply.header('allow', 'GET, HEAD')
      throw new WrongMethod()
    }
    const [own = ''] = raw.url!.split('?', 1)
    const path = pathOf(own)
    const kind = path === null ? null : await kindOf(join(root, path))
    if (reply.sent) return reply
    if (path !== null && kind === 'file') send(request, reply, path)
    else if (path !== null && kind === 'folder' && (await kindOf(join(root, path, index))) === 'file') {
      // Relative links of the page need the slash. An application has one page for all paths.
      if (own.endsWith('/') || (spa && path === '/') || !isSame(own, path)) send(request, reply, path + index)
      else redirect(request, reply)
    } else if (spa && isNavigation(request) && (await kindOf(join(root, index))) === 'file') {
      send(request, reply, `/${index}`)
    } else throw new NoFile()
    return reply
  }
}

/** Returns the path of a file below the folder; null for one that must not exist, such as of a hidden file. */
function filePath(encoded: string): string | null {
  let path: string
  try {
    path = decodeURIComponent(encoded).replace(/\/{2,}/g, '/')
  } catch {
    return null
  }
  if (!path.startsWith('/') || /[\0\\]/.test(path)) return null
  const segments = path.split('/').filter((segment) => segment !== '')
  // RFC 8615
  const isHidden = (segment: string, at: number) => segment.startsWith('.') && !(at === 0 && segment === '.well-known')
  return segments.some(isHidden) ? null : path
}

async function kindOf(file: string): Promise<'file' | 'folder' | null> {
  const stats = await stat(file).catch(() => null)
  if (stats?.isFile() && !file.endsWith(sep)) return 'file'
  return stats?.isDirectory() ? 'folder' : null
}

function redirect(request: FastifyRequest, reply: FastifyReply): void {
  const { url = '' } = request.raw
  const query = url.indexOf('?')
  const [path, rest] = query === -1 ? [url, ''] : [url.slice(0, query), url.slice(query)]
  request.isOwnResponse = true
  reply
    .code(302)
    .header('location', `${localPath(path)}/${rest}`)
    .send()
}

/** Returns whether a browser loads a page, and not a part of one or data. */
function isNavigation({ headers }: FastifyRequest): boolean {
  const mode = headers['sec-fetch-mode']
  return mode === undefined ? (headers.accept ?? '').toLowerCase().includes('text/html') : mode === 'navigate'
}

/** Removes the field for a file from an error in its place, such as 416, which caches would keep as long as the file. */
export function removeCacheControl(_request: unknown, reply: FastifyReply, _error: unknown, done: () => void): void {
  reply.removeHeader('cache-control')
  done()
}

/** Returns the function for `Cache-Control`. A page names the newest files, so it is always validated. */
function cacheRules({ files }: RouteConfig, isGuarded: boolean): (request: FastifyRequest, isPage: boolean) => string {
  const { maxAge, immutable } = files!
  const age = maxAge === undefined ? null : `max-age=${Math.floor(maxAge / 1000)}${immutable ? ', immutable' : ''}`
  return ({ consumer, clientCertificate, headers }, isPage) => {
    const isPrivate =
      consumer != null ||
      headers.authorization !== undefined ||
      (isGuarded && (headers.cookie !== undefined || clientCertificate != null))
    return `${isPrivate ? 'private' : 'public'}, ${isPage || age === null ? 'no-cache' : age}`
  }
}
