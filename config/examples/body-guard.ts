/** Refuses requests and responses with one of some words in their bodies: `options: { words: […] }`, and `scope: routes`. */
import type { FastifyInstance } from 'fastify'
import { askForWholeResponse, readRequestBody, readResponseBody } from 'jingwei/plugin'

const maxSize = 1024 * 1024

export default async function bodyGuard(fastify: FastifyInstance, { words }: { words: string[] }) {
  const check = (body: Buffer | null, statusCode: number) => {
    const hasWord = words.some((word) => body !== null && textOf(body).includes(word))
    if (hasWord) throw Object.assign(new Error('The body is refused'), { statusCode, expose: true })
  }
  fastify.addHook('preHandler', async (request, reply) => {
    askForWholeResponse(request)
    check(await readRequestBody(request, reply, { maxSize }), 400)
  })
  fastify.addHook('onSend', async (_request, reply, payload) => {
    const body = await readResponseBody(reply, payload, { maxSize })
    check(body, 502)
    return body ?? payload
  })
}

/** Returns a body as text. That of JSON is written anew, since its strings may have escapes. */
function textOf(body: Buffer): string {
  try {
    return JSON.stringify(JSON.parse(body.toString()))
  } catch {
    return body.toString()
  }
}
