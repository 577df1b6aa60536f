/** `request.log`, whose logger is created at the first log call. */
import { Writable } from 'node:stream'
import Fastify from 'fastify'
import { pino } from 'pino'
import t from 'tap'
import requestLogger from '../../plugins/operations/request-logger.ts'

t.test('lines carry the request id, and children and levels are pino’s', async (t) => {
  const lines: Record<string, unknown>[] = []
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(JSON.parse(chunk.toString()) as Record<string, unknown>)
      done()
    }
  })
  let children = 0
  const loggerInstance = pino({ level: 'info', onChild: () => void children++ }, stream)
  const server = Fastify({ loggerInstance, disableRequestLogging: true, genReqId: () => 'r1' })
  t.teardown(() => server.close())
  await server.register(requestLogger)
  server.get('/quiet', async () => 'ok')
  server.get('/loud', async (request) => {
    t.equal(request.log.level, 'info')
    request.log.debug('not this')
    request.log.info({ a: 1 }, 'hello %s', 'you')
    request.log.child({ b: 2 }).warn('from a child')
    request.log.level = 'debug'
    request.log.debug('now this')
    request.log.trace('not this')
    request.log.error(new Error('told'))
    request.log.fatal('the end')
    request.log.silent('never')
    t.equal(request.log.level, 'debug')
    return 'ok'
  })
  await server.ready()
  children = 0
  await server.inject('/quiet')
  t.equal(children, 0)
  await server.inject('/loud')
  const logged = lines.map(({ level, msg, requestId, a, b }) => ({ level, msg, requestId, a, b }))
  t.strictSame(logged, [
    { level: 30, msg: 'hello you', requestId: 'r1', a: 1, b: undefined },
    { level: 40, msg: 'from a child', requestId: 'r1', a: undefined, b: 2 },
    { level: 20, msg: 'now this', requestId: 'r1', a: undefined, b: undefined },
    { level: 50, msg: 'told', requestId: 'r1', a: undefined, b: undefined },
    { level: 60, msg: 'the end', requestId: 'r1', a: undefined, b: undefined }
  ])
  t.equal(children, 2)
})
