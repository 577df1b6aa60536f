/** Registers `fastify.spanRecorder`, which takes the spans of both halves. Loaded by the first configuration that has the section. */
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import fp from 'fastify-plugin'
import type { TracingOptions } from '../../../config/schema/tracing.ts'
import { unmetered } from '../../meter.ts'
import { version } from '../about.ts'
import { Exporter } from './exporter.ts'
import { now } from './wall-clock.ts'

/** Returns the options of undici's connector: contents of the PEM files. Throws an error that names the file. */
function tlsOf({ tls = {} }: TracingOptions['otlp']['http']): Record<string, string> {
  const { serverName, ...files } = tls
  const read = ([key, file]: [string, string]): [string, string] => {
    try {
      return [key, readFileSync(file, 'utf8')]
    } catch (cause) {
      throw new Error(`tracing.otlp.http.tls.${key}: ${(cause as Error).message}`, { cause })
    }
  }
  return {
    ...Object.fromEntries(Object.entries(files).map(read)),
    ...(serverName !== undefined && { servername: serverName })
  }
}

export default fp<{ options: TracingOptions }>(
  async (fastify, { options }) => {
    const { otlp, serviceName, resourceAttributes, queue } = options
    const { endpoint, headers = {}, timeout } = otlp.http
    const wanted = {
      ...queue,
      collector: { endpoint, headers, timeout, tls: tlsOf(otlp.http) },
      resource: {
        'service.name': serviceName,
        'service.version': version,
        'host.name': hostname(),
        ...resourceAttributes
      }
    }
    const meter = fastify.hasDecorator('meter') ? fastify.meter.lasting : unmetered.lasting
    const create = () => {
      const resource = { 'service.instance.id': randomUUID(), ...wanted.resource }
      return new Exporter({ ...wanted, resource }, { meter, log: fastify.log, version })
    }
    // A reload that changes none of these keeps the queue.
    const exporter = fastify.stores.claim('jingwei.spans', wanted, create, (unclaimed) => unclaimed.close())
    fastify.decorate('spanRecorder', { now, record: (span) => exporter.record(span) })
  },
  { name: 'jingwei-span-recorder-export', fastify: '5.x' }
)
