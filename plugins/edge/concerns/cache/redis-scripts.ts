/**
 * Scripts by which stored responses are read from and written to Redis, each in one round trip.
 *
 * - `purges` is a hash: `epoch`, a random text that changes if everything is purged; `seq`, the number of the last purge;
 *   `floor`, the number of the last purge that the hash does not have any more; and each purge, `c` with its criteria, with its
 *   number.
 * - A marker, one for each resource, is a random text that changes if the resource is invalidated: it begins with `p` if it
 *   was made for a response, with `i` if for an invalidation.
 * - A key of responses has lists of names, one for each `Vary` in use, the last one used by the newest response.
 * - The key of a response is that of its list with the digest of the names and values. Its value begins with the epoch, the
 *   sequence number and the marker that were valid when the fetch began. It is used only if these are valid still, so a lost
 *   marker, or a lost hash of purges, makes responses invisible, never visible.
 *
 * All are strings or hashes of this cache alone; anything else under their keys is taken for absent, and replaced.
 */

export const epochLength = 16
export const sequenceLength = 12
export const markerLength = 17
/** Bytes before the value of a response. */
export const prefixLength = epochLength + sequenceLength + markerLength
/** Bytes at the start of a value: `P` if the response is public, else `-`; and the time in ms, by which scripts compare it. */
export const flagAndTimeLength = 16
/** Most lists of names for one key. */
const maxLists = 8
/** Most purges that are remembered one by one. Older responses than the last one forgotten are not used. */
export const maxPurges = 1000

const helpers = `
local function get(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'string' then return value end
  return false
end
local function marker()
  local value = get(KEYS[2])
  return value and #value == ${markerLength} and value
end
local function state()
  local found = redis.pcall('HMGET', KEYS[1], 'epoch', 'seq')
  if type(found) ~= 'table' or found.err or not found[1] or not found[2] then return false, false end
  if #found[1] ~= ${epochLength} or #found[2] ~= ${sequenceLength} then return false, false end
  return found[1], found[2]
end
`

/**
 * Finds the newest response for a request. KEYS: purges, marker, public key, own key unless it is the same. ARGV: version of
 * the purges that the node knows; 1 if only public responses of the public key may be used; names and values of headers.
 * Returns the version, the marker, the purges if their version differs, and for each key its last list of names and the value.
 */
export const findScript = `${helpers}
local epoch, seq = state()
local version = epoch and (epoch .. seq) or ''
local mark = marker() or ''
local purges = {}
if epoch and version ~= ARGV[1] then purges = redis.call('HGETALL', KEYS[1]) end
local given = {}
for at = 3, #ARGV, 2 do given[ARGV[at]] = ARGV[at + 1] end
local reply = { version, mark, purges }
local best, bestTime = '', ''
for k = 3, #KEYS do
  local lists = get(KEYS[k]) or ''
  local all = {}
  for list in string.gmatch(lists, '([^\\n]*)\\n') do table.insert(all, 1, list) end
  reply[#reply + 1] = all[1] or false
  for _, list in ipairs(all) do
    local id = list
    for name in string.gmatch(list, '[^,]+') do id = id .. '\\n' .. (given[name] or '') end
    local value = get(KEYS[k] .. ':' .. redis.sha1hex(id))
    if value and epoch and string.sub(value, 1, ${epochLength}) == epoch
      and string.sub(value, ${epochLength + sequenceLength + 1}, ${prefixLength}) == mark
      and not (k == 3 and ARGV[2] == '1' and string.sub(value, ${prefixLength + 1}, ${prefixLength + 1}) ~= 'P') then
      local time = string.sub(value, ${prefixLength + 2}, ${prefixLength + flagAndTimeLength})
      if time >= bestTime then best, bestTime = value, time end
    end
  end
end
reply[#reply + 1] = best
return reply
`

/**
 * Stores a response. KEYS: purges, marker, key. ARGV: version and marker that the fetch saw, a new epoch, a new marker, time
 * to live in ms, list of names, value, values of the names. Returns 1 if it is stored, 0 if it was invalidated meanwhile.
 */
export const putScript = `${helpers}
local seenVersion, seenMarker, newEpoch, newMarker, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local epoch, seq = state()
if epoch then
  local isNew = seenVersion == '' and seq == '${'0'.repeat(sequenceLength)}'
  if epoch .. seq ~= seenVersion and not isNew then return 0 end
else
  if seenVersion ~= '' then return 0 end
  epoch, seq = newEpoch, '${'0'.repeat(sequenceLength)}'
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'epoch', epoch, 'seq', seq, 'floor', seq)
end
local mark = marker()
if mark then
  local isNew = seenMarker == '' and string.sub(mark, 1, 1) == 'p'
  if mark ~= seenMarker and not isNew then return 0 end
else
  if seenMarker ~= '' then return 0 end
  mark = newMarker
end
local function keep(key, value)
  local left = redis.call('PTTL', key)
  redis.call('SET', key, value, 'PX', math.max(ttl, left))
end
keep(KEYS[2], mark)
local list = ARGV[6]
local lists, count = list .. '\\n', 1
local old = {}
for each in string.gmatch(get(KEYS[3]) or '', '([^\\n]*)\\n') do table.insert(old, 1, each) end
for _, each in ipairs(old) do
  if each ~= list and count < ${maxLists} then
    lists = each .. '\\n' .. lists
    count = count + 1
  end
end
keep(KEYS[3], lists)
local id = list
for at = 8, #ARGV do id = id .. '\\n' .. ARGV[at] end
redis.call('SET', KEYS[3] .. ':' .. redis.sha1hex(id), epoch .. seq .. mark .. ARGV[7], 'PX', ttl)
return 1
`

/** Removes a response. KEYS: key. ARGV: list of names, and their values. */
export const removeScript = `
local id = ARGV[1]
for at = 2, #ARGV do id = id .. '\\n' .. ARGV[at] end
return redis.call('DEL', KEYS[1] .. ':' .. redis.sha1hex(id))
`

/**
 * Invalidates resources. KEYS: markers. ARGV: time to live in ms, and a new marker for each. If Redis has no memory for a
 * marker, the old one is deleted, which hides the responses as well.
 */
export const invalidateScript = `
for at = 1, #KEYS do
  local done = redis.pcall('SET', KEYS[at], ARGV[at + 1], 'PX', ARGV[1])
  if done.err then redis.call('DEL', KEYS[at]) end
end
return 1
`

/**
 * Purges. KEYS: purges. ARGV: a new epoch; the criteria, empty for everything. Returns 1, or 2 if everything was purged
 * because Redis has no memory left.
 */
export const purgeScript = `${helpers}
local first = '${'1'.padStart(sequenceLength, '0')}'
local function renew()
  redis.call('DEL', KEYS[1])
  return redis.pcall('HSET', KEYS[1], 'epoch', ARGV[1], 'seq', first, 'floor', first)
end
local epoch, seq = state()
if ARGV[2] == '' or not epoch then
  renew()
  return 1
end
seq = string.format('%0${sequenceLength}d', tonumber(seq) + 1)
local done = redis.pcall('HSET', KEYS[1], 'seq', seq, 'c' .. ARGV[2], seq)
if type(done) == 'table' and done.err then
  redis.call('DEL', KEYS[1])
  return 2
end
if redis.call('HLEN', KEYS[1]) > ${maxPurges + 3} then
  local all = redis.call('HGETALL', KEYS[1])
  local oldest, floor
  for at = 1, #all, 2 do
    if string.sub(all[at], 1, 1) == 'c' and (not floor or all[at + 1] < floor) then oldest, floor = all[at], all[at + 1] end
  end
  redis.call('HDEL', KEYS[1], oldest)
  redis.call('HSET', KEYS[1], 'floor', floor)
end
return 1
`
