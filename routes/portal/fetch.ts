/** Reads the OpenAPI documents of services: from files, or from the services themselves through the mesh. */
import { readFile, stat } from 'node:fs/promises'
import type { FastifyRequest } from 'fastify'
import type { PortalConfig } from '../../config/schema/portal.ts'

type Source = PortalConfig['services'][string]

/** Returns the document of a service as text. Rejects if there is none, or if it is too large. */
export async function documentOf(
  service: string,
  source: Source,
  request: FastifyRequest,
  { timeout, maxDocumentSize }: Pick<PortalConfig, 'timeout' | 'maxDocumentSize'>
): Promise<string> {
  if ('file' in source) return within(timeout, source.file, textOf(source.file, maxDocumentSize))
  const { path } = source
  const headers = { accept: 'application/json, application/yaml;q=0.9, */*;q=0.1' }
  const call = { origin: `http://${service}.mesh`, path, headers, maxResponseSize: maxDocumentSize } as const
  return request.mesh.within(timeout, async (mesh) => {
    const { statusCode, body } = await mesh.request(call)
    const text = await body.text()
    if (statusCode !== 200) throw new Error(`${path} of ${service} responded with status ${statusCode}`)
    return text
  })
}

/** Waits for a file for a limited time: on a file system that hangs, it may never come. */
async function within(timeoutMs: number, file: string, text: Promise<string>): Promise<string> {
  const { promise, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(reject, timeoutMs, new Error(`${file} could not be read within ${timeoutMs} ms`))
  try {
    return await Promise.race([text, promise])
  } finally {
    clearTimeout(timer)
  }
}

async function textOf(file: string, mostBytes: number): Promise<string> {
  const stats = await stat(file)
  // The end of a pipe never comes.
  if (!stats.isFile()) throw new Error(`${file} is not a file`)
  const { size } = stats
  if (size > mostBytes) throw new Error(`${file} has ${size} bytes; ${mostBytes} are possible`)
  return readFile(file, 'utf8')
}
