import { readFileSync } from 'node:fs'
import type { FastifyServerOptions } from 'fastify'
import { LogController } from 'fastify'
import type { Config } from '../../config/schema.ts'
import { refuseUnparsable } from './errors.ts'

/** What the edge asks of Fastify's constructor: the listening socket's limits and the router's ways. */
export function serverOptions({ listen }: Config): FastifyServerOptions {
  const { tls, limits, timeouts } = listen
  const http = {
    maxHeaderSize: limits.headers,
    headersTimeout: timeouts.headers,
    // How often Node looks for clients that overstay `headersTimeout`; its own 30 s would triple it.
    connectionsCheckingInterval: 1000
  }
  const options: FastifyServerOptions = {
    trustProxy: listen.trustProxy.length > 0 ? [...listen.trustProxy] : false,
    keepAliveTimeout: timeouts.keepAlive,
    // A whole upload may take its time; `bodyIdle` bounds each silence in it.
    requestTimeout: 0,
    // While draining, requests on open connections are served and told to close them.
    return503OnClosing: false,
    exposeHeadRoutes: false,
    // One line a request is the access log's business.
    logController: new LogController({ disableRequestLogging: true }),
    clientErrorHandler: refuseUnparsable,
    routerOptions: {
      // `//admin` must meet the rules of `/admin`: services often merge the slashes.
      ignoreDuplicateSlashes: true,
      maxParamLength: limits.url
    }
  }
  if (tls === undefined) return { ...options, http } as FastifyServerOptions
  const https = {
    ...http,
    cert: readFileSync(tls.cert),
    key: readFileSync(tls.key),
    ...(tls.ca !== undefined && { ca: readFileSync(tls.ca), requestCert: true, rejectUnauthorized: true }),
    ...(listen.http2 && { allowHTTP1: true })
  }
  return { ...options, https, ...(listen.http2 && { http2: true }) } as FastifyServerOptions
}
