/** Opens the ports. If one cannot be opened, the error names the key of the configuration and how to change it. */
import { faultAt, variableOf } from '../../config/place.ts'

/** By the code of the system's error: the key at fault, the cause, and what to do. */
const causes: Readonly<Record<string, readonly [key: 'host' | 'port', cause: string, advice: string]>> = {
  EADDRINUSE: ['port', 'the address is in use', 'stop the program that listens there, or '],
  EACCES: ['port', 'the process may not use this port', 'grant it the right, which ports below 1024 need, or '],
  EADDRNOTAVAIL: ['host', 'no network interface of this machine has this address', ''],
  ENOTFOUND: ['host', 'the host name does not exist', ''],
  EAI_AGAIN: ['host', 'the host name cannot be resolved now', '']
}

interface Address {
  readonly host: string
  readonly port: number
}

/** Listens on the address of a section, `listen` or `admin`. */
export async function listenOn(
  server: { listen(address: Address): Promise<unknown> },
  file: string,
  section: string,
  { host, port }: Address
): Promise<void> {
  try {
    await server.listen({ host, port })
  } catch (error) {
    const { code = '', syscall = '' } = error as NodeJS.ErrnoException
    const known = causes[code]
    // An `onListen` hook or a plugin may fail, too.
    if (known === undefined || (syscall !== 'listen' && syscall !== 'getaddrinfo')) throw error
    const [key, cause, advice] = known
    const address = `${host.includes(':') ? `[${host}]` : host}:${port}`
    throw faultAt(
      file,
      `/${section}/${key}`,
      (place) => {
        const variable = variableOf(place)
        const change = variable === undefined ? `name another ${key} here` : `set ${variable} to another ${key}`
        return `cannot listen on ${address}: ${cause} (${code}); ${advice}${change}`
      },
      error
    )
  }
}
