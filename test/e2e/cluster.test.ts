import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import type { AddressInfo, Server, Socket } from 'node:net'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { Agent, fetch, request } from 'undici'
import type { Cluster } from '../cluster/cluster.ts'
import { jwtSecret, startCluster } from '../cluster/cluster.ts'
import { startHaproxy } from '../helpers/haproxy.ts'
import { freePorts, runToEnd, waitFor } from '../helpers/processes.ts'

const home = join(import.meta.dirname, '../..')

interface ServiceResponse {
  service: string
  port: number
  via: string
  client: string
  user?: string
}

async function ask(url: string, headers: Record<string, string> = {}): Promise<ServiceResponse> {
  const response = await fetch(url, { headers })
  if (response.status !== 200) throw new Error(`${url}: ${response.status}`)
  return (await response.json()) as ServiceResponse
}

t.test('two gateways behind a load balancer', { timeout: 110_000 }, async (t) => {
  const cluster = await startCluster({ prometheus: false })
  t.teardown(cluster.stop)
  const { url, gateways, services, consul } = cluster

  await t.test('requests spread over both gateways and over the instances found in Consul', async (t) => {
    const responses = await Promise.all(Array.from({ length: 20 }, () => ask(`${url}/api/orders`)))
    t.equal(new Set(responses.map((response) => response.via)).size, 2, 'gateways')
    t.equal(new Set(responses.map((response) => response.port)).size, 2, 'instances')
  })

  await t.test('the load balancer sets the client address, whatever headers the client sends', async (t) => {
    const lies = { 'x-forwarded-for': '9.9.9.9', forwarded: 'for=9.9.9.9', 'x-real-ip': '9.9.9.9' }
    t.equal((await ask(`${url}/api/orders`, lies)).client, '127.0.0.1, 127.0.0.1')
  })

  await t.test('a token from the command opens the guarded route, on either gateway', async (t) => {
    t.equal((await fetch(`${url}/api/users`)).status, 401)
    const args = [join(home, 'app.ts'), 'token', 'users', '-c', join(home, 'config/examples/cluster.yaml')]
    const { stdout } = await runToEnd(process.execPath, args, { env: { ...process.env, JWT_SECRET: jwtSecret } })
    const authorization = `Bearer ${stdout.trim()}`
    for (const base of [url, gateways[0].url, gateways[1].url]) {
      t.equal((await ask(`${base}/api/users`, { authorization })).user, 'developer')
    }
  })

  await t.test('both gateways hold one limit, which no forwarding header gets around', async (t) => {
    // Alternately to the load balancer and to each gateway, since the limit is shared.
    const statuses: number[] = []
    for (let index = 0; index < 30; index++) {
      const base = [url, gateways[0].url, gateways[1].url][index % 3]!
      const headers = base === url ? { 'x-forwarded-for': `10.0.0.${index}` } : {}
      const response = await fetch(`${base}/api/products`, { headers })
      await response.arrayBuffer()
      statuses.push(response.status)
    }
    t.same(statuses, [...Array(20).fill(200), ...Array(10).fill(429)])
  })

  await t.test('one gateway is killed and the other drained, and no idempotent request fails', async (t) => {
    const load = startLoad(`${url}/api/orders`)
    await waitFor('the load runs', () => load.total() > 200)

    t.same(await gateways[0].end('SIGKILL'), { code: null, signal: 'SIGKILL' })
    await waitFor('HAProxy has noticed', async () => (await cluster.inRotation()).join() === 'gateway-2')
    const whileDead = load.total()
    await waitFor('the load goes on', () => load.total() > whileDead + 300)
    await gateways[0].start()
    await waitFor('the killed gateway is back', async () => (await cluster.inRotation()).length === 2)

    t.same(await gateways[1].end('SIGTERM'), { code: 0, signal: null }, 'the gateway drains and exits with 0')
    t.same(await cluster.inRotation(), ['gateway-1'])
    const whileDrained = load.total()
    await waitFor('the load goes on', () => load.total() > whileDrained + 300)
    await gateways[1].start()
    await waitFor('the drained gateway is back', async () => (await cluster.inRotation()).length === 2)
    await waitFor('enough requests were made', () => load.total() >= 2000, 30_000)

    const { total, failures } = await load.stop()
    t.comment(`${total} requests`)
    t.same(failures, [])
    t.ok(total >= 2000, `${total} requests`)
  })

  await t.test('an instance deregisters from Consul before it stops, and no request fails', async (t) => {
    const load = startLoad(`${url}/api/orders`)
    const [leaving, staying] = services as [Cluster['services'][0], Cluster['services'][0]]
    await waitFor('the load runs', () => load.total() > 100)
    t.same(await leaving.end('SIGTERM'), { code: 0, signal: null })
    const health = await consul.api('GET', '/v1/health/service/orders')
    t.equal((health.body as unknown[]).length, 1)
    const before = load.total()
    await waitFor('the load goes on', () => load.total() > before + 100)
    t.same((await load.stop()).failures, [])
    const responses = await Promise.all(Array.from({ length: 10 }, () => ask(`${url}/api/orders`)))
    t.ok(responses.every((response) => `http://127.0.0.1:${response.port}` === staying.url))
    await leaving.start()
  })

  await t.test('a service registers again in a Consul that has lost its data', async () => {
    const id = `users-127.0.0.1-${new URL(services[3]!.url).port}`
    await consul.api('PUT', `/v1/agent/service/deregister/${id}`)
    await waitFor('it is back', async () => {
      const { body } = await consul.api('GET', '/v1/health/service/users?passing')
      return (body as unknown[]).length === 1
    })
  })
})

/** Sends idempotent requests in sequence on each of a few connections, until stopped. */
function startLoad(url: string) {
  const agent = new Agent({ connections: 8 })
  const failures: string[] = []
  let total = 0
  let running = true
  const worker = async (method: string) => {
    while (running) {
      try {
        const response = await fetch(url, { method, dispatcher: agent })
        await response.arrayBuffer()
        if (response.status !== 200) failures.push(`${method}: ${response.status}`)
      } catch (error) {
        failures.push(`${method}: ${(error as Error).message}: ${((error as Error).cause as Error)?.message}`)
      }
      total++
      await sleep(10)
    }
  }
  const workers = ['GET', 'GET', 'GET', 'HEAD', 'PUT', 'DELETE', 'GET', 'GET'].map(worker)
  return {
    total: () => total,
    async stop() {
      running = false
      await Promise.all(workers)
      await agent.close()
      return { total, failures }
    }
  }
}

t.test('the load balancer retries no request that is not idempotent', async (t) => {
  // Both "gateways" are healthy, accept a request and close the connection without a response.
  const received: string[] = []
  const sockets = new Set<Socket>()
  const rude = () =>
    listen((socket) => {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.once('data', (headerSection) => {
        received.push(headerSection.toString().split(' ')[0]!)
        socket.destroy()
      })
    })
  const health = () => listen((socket) => socket.end('HTTP/1.0 200 OK\r\n\r\n').on('error', () => {}))
  const servers = await Promise.all([rude(), rude(), health()])
  t.teardown(() => {
    for (const server of servers) server.close()
    for (const socket of sockets) socket.destroy()
  })
  const [first, second, admin] = servers.map((server) => (server.address() as AddressInfo).port)
  const [edge, status] = (await freePorts(2)) as [number, number]
  const haproxy = await startHaproxy({
    configFile: join(home, 'config/haproxy/haproxy.cfg'),
    env: {
      EDGE_BIND: `127.0.0.1:${edge}`,
      STATUS_BIND: `127.0.0.1:${status}`,
      GATEWAY_1: `127.0.0.1:${first}`,
      GATEWAY_1_ADMIN: `${admin}`,
      GATEWAY_2: `127.0.0.1:${second}`,
      GATEWAY_2_ADMIN: `${admin}`
    },
    ports: [edge, status]
  })
  t.teardown(haproxy.stop)
  const send = async (method: 'GET' | 'PUT' | 'POST' | 'PATCH') => {
    received.length = 0
    const body = method === 'GET' ? null : '{"order":1}'
    const response = await request(`http://127.0.0.1:${edge}/`, { method, body, reset: true })
    await response.body.dump()
    return response.statusCode
  }
  const times = { GET: 3, PUT: 3, POST: 1, PATCH: 1 }
  for (const method of ['GET', 'PUT', 'POST', 'PATCH'] as const) {
    t.equal(await send(method), 502, method)
    t.same(received, Array(times[method]).fill(method))
  }

  // After a refused connection no request was received: HAProxy retries at the other node, with any method.
  servers[0]!.close()
  for (let index = 0; index < 4; index++) {
    t.equal(await send('POST'), 502, 'a POST on a connection that is closed without a response is not retried')
    t.same(received, ['POST'])
  }
})

async function listen(onConnection: (socket: Socket) => void): Promise<Server> {
  const server = createServer(onConnection).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

t.test('the command prints example requests, restarts processes that die, and leaves none running', async (t) => {
  const child = spawn(process.execPath, [join(home, 'test/cluster/cluster.ts'), '--free-ports'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true // a process group of its own, as a terminal's foreground job
  })
  t.teardown(() => child.kill('SIGKILL'))
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  await waitFor('it is up', () => output.includes('The cluster is up'), 60_000)
  const edge = /edge\s+(http\S+)/.exec(output)![1]!
  t.match(await ask(`${edge}/api/orders`), { service: 'orders' })

  const pid = Number(/gateway-1 .* pid (\d+)/.exec(output)![1])
  process.kill(pid, 'SIGKILL')
  await waitFor('the output reports it', () => output.includes(`gateway-1 (pid ${pid}) has ended with SIGKILL`))
  await waitFor('the gateway is restarted', () => output.includes('gateway-1 is back'), 20_000)

  const parts = await childrenOf(child.pid!)
  t.ok(parts.length >= 10, `${parts.length} processes`)
  process.kill(-child.pid!, 'SIGINT') // Ctrl-C reaches every process of the group
  const [code] = (await once(child, 'exit')) as [number | null]
  t.equal(code, 0)
  for (const part of parts) t.throws(() => process.kill(part, 0), { code: 'ESRCH' }, `${part} is gone`)
  await t.rejects(fetch(edge))
})

async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')
  const direct = text.trim().split(/\s+/).filter(Boolean).map(Number)
  const further = await Promise.all(direct.map(childrenOf))
  return [...direct, ...further.flat()]
}
