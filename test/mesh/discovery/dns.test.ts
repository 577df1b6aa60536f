// slow: takes about 7 s
/** DNS discovery against a small server over UDP and TCP. */
import dgram from 'node:dgram'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Answer, Packet, Question } from 'dns-packet'
import { decode, encode, streamEncode, TRUNCATED_RESPONSE } from 'dns-packet'
import type { Test } from 'tap'
import t from 'tap'
import { parseServer } from '../../../plugins/mesh/discovery/dns/query.ts'
import { byPriority, scaleWeights } from '../../../plugins/mesh/discovery/dns/records.ts'
import type { DnsOptions } from '../../../plugins/mesh/discovery/dns/resolve.ts'
import { DnsSource, dnsTiming } from '../../../plugins/mesh/discovery/dns/source.ts'
import { createDiscovery } from '../../../plugins/mesh/discovery/index.ts'
import { discoveryCounters } from '../../../plugins/mesh/discovery/loop.ts'
import { eventually } from '../../helpers/eventually.ts'
import { recording, service, watch } from '../../helpers/mesh/sources.ts'

const NXDOMAIN = 3
const SERVFAIL = 2
const FORMERR = 1
interface Said {
  code?: number
  answers?: Answer[]
  additionals?: Answer[]
  /** Over UDP only. */
  truncated?: boolean
  /** Datagrams sent before the genuine response. */
  forged?: (queries: Packet) => Buffer[]
  silent?: boolean
}
type Say = (question: Question, count: number, packet: Packet) => Said

/** Responds by `say`, which gets the number of earlier queries of this type. */
async function dnsServer(t: Test, say: Say) {
  const queries: { type: string; name: string; over: 'udp' | 'tcp'; at: number }[] = []
  const reply = (packet: Packet, over: 'udp' | 'tcp') => {
    const [question] = packet.questions ?? []
    if (!question) throw new Error('no question')
    const count = queries.filter(({ type }) => type === question.type).length
    queries.push({ type: question.type, name: question.name, over, at: performance.now() })
    const script = say(question, count, packet)
    const truncated = script.truncated && over === 'udp'
    const response: Packet = {
      type: 'response',
      id: packet.id,
      flags: (script.code ?? 0) | (truncated ? TRUNCATED_RESPONSE : 0),
      questions: [question],
      answers: truncated ? [] : script.answers,
      additionals: script.additionals
    }
    return { script, response }
  }
  const tcp = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', (data: Buffer) => {
      const message = streamEncode(reply(decode(data.subarray(2)), 'tcp').response)
      // Sent in two segments, as a network may deliver it.
      socket.write(message.subarray(0, 5))
      setTimeout(() => socket.end(message.subarray(5)), 10)
    })
  })
  await new Promise<void>((resolve) => tcp.listen(0, '127.0.0.1', resolve))
  const { port } = tcp.address() as AddressInfo
  const udp = dgram.createSocket('udp4')
  udp.on('message', (data, from) => {
    const packet = decode(data)
    const { script, response } = reply(packet, 'udp')
    if (script.silent) return
    for (const forged of script.forged?.(packet) ?? []) udp.send(forged, from.port)
    udp.send(encode(response), from.port)
  })
  await new Promise<void>((resolve) => udp.bind(port, '127.0.0.1', resolve))
  t.teardown(() => {
    udp.close()
    tcp.close()
  })
  return { queries, server: `127.0.0.1:${port}` }
}

function open(t: Test, options: Partial<DnsOptions> & { host: string }) {
  const { surroundings, lines, counts } = recording()
  const discovery = createDiscovery({}, surroundings)
  const dns = { srv: false, tls: false, minTtl: 100, maxTtl: 60_000, ...options }
  const source = discovery.source(service('legacy', { dns }))
  t.teardown(() => discovery.close())
  return { source, lines, counts, ...watch(source) }
}

/** As above, with a shorter period until an empty response is accepted. */
function hasty(t: Test, options: Partial<DnsOptions> & { host: string }, timing: Partial<typeof dnsTiming>) {
  const { surroundings, lines, counts } = recording()
  const dns = { srv: false, tls: false, minTtl: 50, maxTtl: 60_000, ...options }
  const all = { ...dnsTiming, ...timing }
  const source = new DnsSource('legacy', dns, surroundings, discoveryCounters(surroundings.meter), all)
  t.teardown(() => source.close())
  return { source, lines, counts, ...watch(source) }
}

const a = (data: string, ttl = 60, name = 'legacy.test'): Answer => ({ type: 'A', name, ttl, data })
const aaaa = (data: string, ttl = 60, name = 'legacy.test'): Answer => ({ type: 'AAAA', name, ttl, data })
const srv = (target: string, port: number, priority: number, weight: number, ttl = 60): Answer => {
  return { type: 'SRV', name: '_web._tcp.test', ttl, data: { target, port, priority, weight } }
}

t.test('A and AAAA records are found behind an alias whose record comes last', async (t) => {
  const { server } = await dnsServer(t, ({ type }) => ({
    answers:
      type === 'A'
        ? [
            a('10.0.0.1', 60, 'Real.test'),
            a('10.9.9.9', 60, 'other.test'),
            { type: 'CNAME', name: 'legacy.test', data: 'real.test', ttl: 60 }
          ]
        : [aaaa('fd00::1')]
  }))
  const { until, sets, source } = open(t, { host: 'Legacy.test.', port: 8080, server })
  await until(['http://10.0.0.1:8080', 'http://[fd00::1]:8080'])
  const id = 'http://10.0.0.1:8080'
  t.same(sets[0]?.[0], { id, origin: id, weight: 1, tags: [], meta: { 'dns-name': 'Legacy.test.' } })
  t.match(source.status(), { kind: 'dns', confirmedAt: Number, error: null })
})

t.test('tls and the default port are set', async (t) => {
  const { server } = await dnsServer(t, ({ type }) => ({ answers: type === 'A' ? [a('10.0.0.1')] : [] }))
  await open(t, { host: 'legacy.test', tls: true, server }).until(['https://10.0.0.1'])
  await open(t, { host: 'legacy.test', server }).until(['http://10.0.0.1'])
})

t.test('the TTL is honoured, between its bounds', async (t) => {
  const gaps = async (ttl: number, bounds: { minTtl: number; maxTtl: number }, times: number) => {
    const { server, queries } = await dnsServer(t, ({ type }) => ({
      answers: type === 'A' ? [a('10.0.0.1', ttl)] : []
    }))
    const { source } = open(t, { host: 'legacy.test', server, ...bounds })
    const times4 = () => queries.filter(({ type }) => type === 'A').map(({ at }) => at)
    await eventually(() => times4().length === times)
    await source.close()
    return times4()
      .slice(1)
      .map((at, i) => at - (times4()[i] ?? 0))
  }
  const [one] = await gaps(1, { minTtl: 10, maxTtl: 60_000 }, 2)
  t.ok(one && one >= 990 && one < 1500, `TTL of 1 s: ${one}`)
  const [least] = await gaps(0, { minTtl: 300, maxTtl: 60_000 }, 2)
  t.ok(least && least >= 290 && least < 700, `least: ${least}`)
  const [most] = await gaps(3600, { minTtl: 10, maxTtl: 300 }, 2)
  t.ok(most && most >= 290 && most < 700, `most: ${most}`)
})

t.test('SRV: the preferred group only, while any of it has an address', async (t) => {
  const { server } = await dnsServer(t, ({ type, name }, count) => {
    if (type === 'SRV') {
      const targets = [srv('b.test', 8002, 20, 5, 0), srv('a.test', 8001, 10, 3, 0), srv('a2.test', 8001, 10, 1, 0)]
      return { answers: targets, additionals: [a('10.0.0.2', 0, 'b.test')] }
    }
    // a.test and a2.test have no additional record, so they are queried; later they do not exist.
    if (type === 'A' && name === 'a.test')
      return count < 2 ? { answers: [a('10.0.0.1', 0, 'A.test')] } : { code: NXDOMAIN }
    return { code: NXDOMAIN }
  })
  const { until, sets } = open(t, { host: '_web._tcp.test', srv: true, server })
  await until(['http://10.0.0.1:8001'])
  t.match(sets[0]?.[0], { weight: 3, meta: { 'dns-name': 'a.test' } })
  t.same(sets[0]?.length, 1)
})

t.test('SRV: the next group when the preferred one has no address at all', async (t) => {
  const { server } = await dnsServer(t, ({ type }) =>
    type === 'SRV'
      ? {
          answers: [srv('a.test', 8001, 10, 3), srv('b.test', 8002, 20, 5)],
          additionals: [aaaa('fd00::2', 60, 'b.test')]
        }
      : { code: NXDOMAIN }
  )
  await open(t, { host: '_web._tcp.test', srv: true, server }).until(['http://[fd00::2]:8002'])
})

t.test('SRV target "." means that the service is not available', async (t) => {
  const { server } = await dnsServer(t, () => ({ answers: [srv('.', 0, 0, 0)] }))
  await open(t, { host: '_web._tcp.test', srv: true, server }).until([])
})

t.test('SRV weights are used', async (t) => {
  t.same(scaleWeights([0, 0]), [1, 1])
  t.same(scaleWeights([3, 1]), [3, 1])
  t.same(scaleWeights([0, 1, 2]), [1, 100, 200])
  t.same(scaleWeights([0, 300]), [1, 300])
  t.same(scaleWeights([]), [])
  const target = (host: string, priority: number) => ({ host, port: 1, priority, weight: 1 })
  const groups = byPriority([target('c', 9), target('a', 1), target('b', 9)])
  t.same(
    groups.map((group) => group.map(({ host }) => host)),
    [['a'], ['c', 'b']]
  )
})

t.test('after a truncated response, the query is repeated over TCP', async (t) => {
  const many = Array.from({ length: 100 }, (_, i) => a(`10.0.1.${i}`))
  const { server, queries } = await dnsServer(t, ({ type }) => (type === 'A' ? { truncated: true, answers: many } : {}))
  const { sets } = open(t, { host: 'legacy.test', server })
  await eventually(() => sets.length === 1)
  t.equal(sets[0]?.length, 100)
  t.same(
    queries.filter(({ type }) => type === 'A').map(({ over }) => over),
    ['udp', 'tcp']
  )
})

t.test('a response that nearly fills its datagram may be truncated without TC', async (t) => {
  const some = Array.from({ length: 60 }, (_, i) => a(`10.0.1.${i}`))
  const { server } = await dnsServer(t, ({ type }, count) => {
    if (type !== 'A') return {}
    return { answers: count === 0 ? some : [...some, a('10.0.1.99')] }
  })
  const { sets } = open(t, { host: 'legacy.test', server })
  await eventually(() => sets.length === 1)
  t.equal(sets[0]?.length, 61)
})

t.test('forged and malformed datagrams are ignored', async (t) => {
  const { server } = await dnsServer(t, ({ type, name }) => ({
    answers: type === 'A' ? [a('10.0.0.1')] : [],
    forged: ({ id = 0 }) => {
      const evil: Packet = { type: 'response', id, questions: [{ type: 'A', name }], answers: [a('6.6.6.6')] }
      return [
        encode({ ...evil, id: (id + 1) & 0xffff }),
        encode({ ...evil, questions: [{ type: 'A', name: 'evil.test' }] }),
        encode({ ...evil, questions: [{ type: 'TXT', name }] }),
        encode({ ...evil, questions: [] }),
        encode({ ...evil, type: 'query' }),
        encode({ ...evil, questions: [{ type: type === 'A' ? 'A' : 'AAAA', name }] }).subarray(0, 40),
        Buffer.from('junk')
      ]
    }
  }))
  await open(t, { host: 'legacy.test', server }).until(['http://10.0.0.1'])
})

t.test('a server without EDNS is queried without it', async (t) => {
  const { server } = await dnsServer(t, ({ type }, _, { additionals }) => {
    if (additionals?.length) return { code: FORMERR }
    return { answers: type === 'A' ? [a('10.0.0.1')] : [] }
  })
  await open(t, { host: 'legacy.test', server }).until(['http://10.0.0.1'])
})

t.test('failures keep the set, and are shown, counted and logged once', async (t) => {
  let code = 0
  const { server } = await dnsServer(t, ({ type }) => ({
    code,
    answers: code === 0 && type === 'A' ? [a('10.0.0.1', 0)] : []
  }))
  const { until, sets, source, lines, counts } = open(t, { host: 'legacy.test', server })
  await until(['http://10.0.0.1'])
  code = SERVFAIL
  await eventually(() => /SERVFAIL/.test(source.status().error ?? ''))
  t.equal(sets.length, 1)
  code = 0
  await eventually(() => source.status().error === null)
  t.same(
    lines.map(({ level, message }) => `${level} ${message}`),
    ['warn DNS unavailable; service legacy keeps the instances last known', 'info DNS available again']
  )
  t.ok((counts['jingwei_mesh_discovery_errors_total{legacy}'] ?? 0) >= 1)
})

t.test('DNS unavailable before the first result: the service has no instances', async (t) => {
  const { server } = await dnsServer(t, () => ({ code: SERVFAIL, answers: [] }))
  const { source, lines } = open(t, { host: 'legacy.test', server })
  await eventually(() => source.status().error !== null)
  t.equal(
    lines[0]?.message,
    'DNS unavailable; service legacy has no instances, so it responds with 503 until DNS is available'
  )
})

for (const [what, host, srv] of [
  ['a host', 'no-such.test', false],
  ['an SRV name', '_no-such._tcp.test', true]
] as const) {
  t.test(`${what} that does not exist is a response: no instances`, async (t) => {
    let exists = false
    const { server } = await dnsServer(t, ({ type }) => {
      if (!exists) return { code: NXDOMAIN }
      if (type === 'SRV') {
        const target = { target: 'b.test', port: 8002, priority: 1, weight: 1 }
        return {
          answers: [{ type: 'SRV', name: host, ttl: 60, data: target }],
          additionals: [a('10.0.0.1', 60, 'b.test')]
        }
      }
      return { answers: type === 'A' ? [a('10.0.0.1', 60, host)] : [] }
    })
    const port = srv ? {} : { port: 8002 }
    const { source, until, lines, counts } = hasty(t, { host, srv, server, ...port }, { emptyPause: 50 })
    await until([])
    await eventually(() => source.status().confirmedAt !== null)
    t.equal(source.status().error, `DNS name ${host} does not exist`)
    exists = true
    await until(['http://10.0.0.1:8002'])
    await eventually(() => source.status().error === null)
    t.same(
      lines.map(({ level, message }) => `${level} ${message}`),
      [
        `warn DNS name ${host} does not exist; service legacy has no instances`,
        `info DNS name ${host} of service legacy exists again`
      ]
    )
    t.equal(counts['jingwei_mesh_discovery_errors_total{legacy}'], 0)
  })
}

t.test('SRV targets with one address are one instance', async (t) => {
  const { server } = await dnsServer(t, () => ({
    answers: [srv('a.test', 8001, 10, 3), srv('b.test', 8001, 10, 5)],
    additionals: [a('10.0.0.1', 60, 'a.test'), a('10.0.0.1', 60, 'b.test')]
  }))
  const { until, sets } = open(t, { host: '_web._tcp.test', srv: true, server })
  await until(['http://10.0.0.1:8001'])
  t.match(sets[0], [{ weight: 5, meta: { 'dns-name': 'a.test' } }])
})

t.test('a failure of one address family removes no instance', async (t) => {
  const { server, queries } = await dnsServer(t, ({ type }, count) => {
    if (type === 'AAAA') return count === 0 ? { answers: [aaaa('fd00::1', 0)] } : { code: SERVFAIL }
    return { answers: [a(count < 3 ? '10.0.0.1' : '10.0.0.2', 0)] }
  })
  const { until, sets } = open(t, { host: 'legacy.test', server })
  await until(['http://10.0.0.2', 'http://[fd00::1]'])
  t.equal(sets.length, 2)
  t.ok(queries.length > 6)
})

for (const [what, code] of [
  ['an empty response', 0],
  ['NXDOMAIN', NXDOMAIN]
] as const) {
  t.test(`${what} is accepted when it persists`, async (t) => {
    let emptySince: number | null = null
    const { server } = await dnsServer(t, ({ type }, count) => {
      // Full, empty, full, and then empty for good.
      if (count === 0 || count === 2) return { answers: type === 'A' ? [a('10.0.0.1', 0)] : [] }
      if (count > 2) emptySince ??= performance.now()
      return { code }
    })
    const { sets, until, source } = hasty(t, { host: 'legacy.test', server }, { emptyPause: 50, emptyGrace: 600 })
    await until(['http://10.0.0.1'])
    await eventually(() =>
      /(lists no instance|does not exist); the last instances stay in use/.test(source.status().error ?? '')
    )
    await until([])
    t.ok(performance.now() - (emptySince ?? Number.POSITIVE_INFINITY) >= 550)
    t.equal(sets.length, 2)
  })
}

t.test('a failure while an empty response is being confirmed restarts the period', async (t) => {
  const { server, queries } = await dnsServer(t, ({ type }, count) => {
    if (count === 0) return { answers: type === 'A' ? [a('10.0.0.1', 0)] : [] }
    return count % 3 === 0 ? { code: SERVFAIL } : { code: NXDOMAIN }
  })
  const { sets } = hasty(t, { host: 'legacy.test', server }, { emptyPause: 50, emptyGrace: 10_000 })
  await eventually(() => queries.filter(({ type }) => type === 'A').length > 12)
  t.equal(sets.length, 1)
})

t.test('a silent server: retried, then the next query is on schedule', async (t) => {
  const { server, queries } = await dnsServer(t, ({ type }, count) => ({
    silent: count === 0,
    answers: type === 'A' ? [a('10.0.0.1')] : []
  }))
  await open(t, { host: 'legacy.test', server }).until(['http://10.0.0.1'])
  t.ok((queries.at(-1)?.at ?? 0) - (queries[0]?.at ?? 0) >= 1900)
})

t.test('names of the system, and addresses, need no DNS server', async (t) => {
  const local = open(t, { host: 'localhost', port: 81 })
  await eventually(() => (local.origins()?.length ?? 0) > 0)
  for (const origin of local.origins() ?? []) t.match(origin, /^http:\/\/(127\.0\.0\.1|\[::1\]):81$/)
  await open(t, { host: '10.0.0.3', port: 82 }).until(['http://10.0.0.3:82'])
  await open(t, { host: 'fd00::3', port: 82 }).until(['http://[fd00::3]:82'])
})

t.test('close: ends at once, during a query and during a pause', async (t) => {
  const { server, queries } = await dnsServer(t, ({ name }) => ({
    silent: name === 'silent.test',
    answers: [a('10.0.0.1')]
  }))
  const silent = open(t, { host: 'silent.test', server })
  const resting = open(t, { host: 'legacy.test', server })
  await resting.until(['http://10.0.0.1'])
  await eventually(() => queries.some(({ name }) => name === 'silent.test'))
  const begun = performance.now()
  await Promise.all([silent.source.close(), resting.source.close()])
  t.ok(performance.now() - begun < 500)
  t.equal(silent.source.status().error, null)
  const { length } = queries
  await sleep(300)
  t.equal(queries.length, length)
})

t.test('notations of a server address', async (t) => {
  t.same(parseServer('10.0.0.53'), { host: '10.0.0.53', port: 53 })
  t.same(parseServer('127.0.0.1:8600'), { host: '127.0.0.1', port: 8600 })
  t.same(parseServer('::1'), { host: '::1', port: 53 })
  t.same(parseServer('[fd00::1]:5353'), { host: 'fd00::1', port: 5353 })
})
