/** Scripts that run in Redis, each atomically and in one round trip. They compute as algorithms.ts does, by Redis' clock. */

/**
 * Checks all limits, then takes the units of all, or of none if one limit lacks them. KEYS: one for each limit. ARGV: 1 to
 * take them in any case; then for each limit: algorithm, max, window, burst, cost, wanted units, 1 in shadow mode. Returns for each limit:
 * units taken, units left, milliseconds until the reset, milliseconds until the cost is there.
 */
export const limitScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local force = ARGV[1] == '1'
local limits, allowed = {}, true
for i, key in ipairs(KEYS) do
  local at = i * 7 - 5
  local l = { tag = ARGV[at], prev = 0, wait = 0 }
  l.max, l.window, l.burst = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  l.cost, l.wanted = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  if l.tag == 'f' then
    l.used, l.reset = tonumber(redis.call('GET', key) or 0), redis.call('PTTL', key)
    if l.reset < 0 or l.reset > l.window then
      l.reset, l.renew = l.window, true
    end
  elseif l.tag == 's' then
    local stored = redis.call('HMGET', key, 'w', 'c', 'p')
    l.index = math.floor(now / l.window)
    l.count = 0
    local age = l.index - tonumber(stored[1] or -2)
    if age == 0 then l.count, l.prev = tonumber(stored[2]), tonumber(stored[3])
    elseif age == 1 then l.prev = tonumber(stored[2]) end
    l.reset = (l.index + 1) * l.window - now
    l.used = l.count + l.prev * l.reset / l.window
  else
    l.full = math.max(tonumber(redis.call('GET', key) or 0), now)
    l.reset = l.full - now
    l.used = l.reset * l.max / l.window
  end
  l.left = l.burst - l.used + 0.000001
  if l.left < l.cost then
    l.skip = not force and ARGV[at + 6] == '1'
    if not l.skip then allowed = force end
    local rest = l.burst - l.cost
    if l.tag == 'f' then l.wait = l.reset
    elseif l.tag == 't' then l.wait = l.reset - rest * l.window / l.max
    elseif l.count <= rest then l.wait = l.reset - (rest - l.count) / l.prev * l.window
    else l.wait = l.reset + (1 - rest / l.count) * l.window end
    l.wait = math.max(l.wait, 1)
  end
  limits[i] = l
end
local out = {}
for i, key in ipairs(KEYS) do
  local l = limits[i]
  local taken = 0
  if allowed and not l.skip then
    taken = math.max(l.cost, math.min(l.wanted, math.floor(l.left)))
    if l.tag == 'f' then
      redis.call('INCRBY', key, taken)
      if l.renew then redis.call('PEXPIRE', key, l.window) end
    elseif l.tag == 's' then
      redis.call('HSET', key, 'w', l.index, 'c', l.count + taken, 'p', l.prev)
      redis.call('PEXPIRE', key, 2 * l.window)
    else
      l.reset = l.reset + taken * l.window / l.max
      redis.call('SET', key, string.format('%.4f', now + l.reset), 'PX', math.ceil(l.reset))
    end
  elseif l.renew and l.used > 0 then
    redis.call('PEXPIRE', key, l.window)
  end
  out[#out + 1] = taken
  out[#out + 1] = math.max(math.floor(l.left - taken), 0)
  out[#out + 1] = math.ceil(l.reset)
  out[#out + 1] = math.ceil(l.wait)
end
return out`

/** Announces a node and returns the number of nodes that have announced themselves within a lifetime. */
export const nodesScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])`
