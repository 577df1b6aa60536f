/** Reads the OpenAPI documents of services: from files, or from the services themselves through the mesh. */
import { readFile, stat } from 'node:fs/promises'
import type { FastifyRequest } from 'fastify'
import { CORE_SCHEMA, load } from 'js-yaml'
import type { PortalConfig } from '../../config/schema/portal.ts'

type Source = PortalConfig['services'][string]

/** Returns the document of a service. Rejects if there is none, or if it is too large or malformed. */
export async function documentOf(
  service: string,
  source: Source,
  request: FastifyRequest,
  { timeout, maxDocumentSize }: Pick<PortalConfig, 'timeout' | 'maxDocumentSize'>
): Promise<unknown> {
  return parsed('file' in source ? await textOf(source.file, maxDocumentSize) : await fetched())

  async function fetched(): Promise<string> {
    const { path } = source as { path: string }
    const headers = { accept: 'application/json, application/yaml;q=0.9, */*;q=0.1' }
    const call = { origin: `http://${service}.mesh`, path, headers, maxResponseSize: maxDocumentSize } as const
    return request.mesh.within(timeout, async (mesh) => {
      const { statusCode, body } = await mesh.request(call)
      const text = await body.text()
      if (statusCode !== 200) throw new Error(`${path} of ${service} responded with status ${statusCode}`)
      return text
    })
  }
}

async function textOf(file: string, mostBytes: number): Promise<string> {
  const { size } = await stat(file)
  if (size > mostBytes) throw new Error(`${file} has ${size} bytes; ${mostBytes} are possible`)
  return readFile(file, 'utf8')
}

/** Parses JSON or YAML. Aliases share their values, so that a short text takes little memory whatever it stands for. */
const parsed = (text: string): unknown => (/^\s*\{/.test(text) ? JSON.parse(text) : load(text, { schema: CORE_SCHEMA }))
