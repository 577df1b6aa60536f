// Hooks that respond in place of Fastify and never continue, as middlewares for Connect and Express do.
import t from 'tap'
import { configIn, folder, listen, service } from '../helpers/plugins.ts'
import { waitFor } from '../helpers/processes.ts'

const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length

t.test('the response ends the hookTimeout of a hook that has responded by reply.raw', async (t) => {
  const root = await folder(t, {
    'plugin.js': `
      module.exports = async (fastify) => {
        fastify.addHook('onRequest', (request, reply, done) => {
          if (request.url === '/orders/now') reply.raw.end('now')
          else if (request.url === '/orders/soon') setTimeout(() => reply.raw.end('soon'), 1)
          else done()
        })
      }`
  })
  const origin = await service(t, (_request, response) => response.end('service'))
  const { url } = await listen(t, configIn(root, origin, [{ path: './plugin.js' }]))
  const ask = async (path: string) => (await fetch(url + path, { headers: { connection: 'close' } })).text()
  t.equal(await ask('/orders'), 'service')
  const before = timers()
  for (let i = 0; i < 10; i++) t.equal(await ask('/orders/now'), 'now')
  for (let i = 0; i < 10; i++) t.equal(await ask('/orders/soon'), 'soon')
  await waitFor('the timers of the hooks to end', () => timers() <= before)
})
