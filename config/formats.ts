/** String formats of schemas. */
import { isIP } from 'node:net'

/** Returns whether a text is a host with an optional port. */
function isAuthority(text: string): boolean {
  if (!URL.canParse(`tcp://${text}`)) return false
  const { hostname, host } = new URL(`tcp://${text}`)
  return hostname !== '' && host.toLowerCase() === text.toLowerCase()
}

function isPeer(text: string): boolean {
  if (text === 'unix') return true
  const [address = '', bits, ...rest] = text.split('/')
  const version = isIP(address)
  if (version === 0 || rest.length > 0) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128))
}

function isUrl(text: string): boolean {
  return URL.canParse(text) && new URL(text).hostname !== ''
}

export const formats = { url: isUrl, authority: isAuthority, peer: isPeer } as const
