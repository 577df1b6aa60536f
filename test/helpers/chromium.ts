/** A real browser, Chromium without a window, controlled by the Chrome DevTools Protocol. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'
import { eventually } from './eventually.ts'
import { tool } from './tools.ts'

type Params = Record<string, unknown>

interface Message {
  readonly id?: number
  readonly error?: { readonly message: string }
  readonly result?: Params
}

/** A cookie as the browser stores it. */
export interface StoredCookie {
  readonly name: string
  readonly value: string
  /** With a leading dot if it is sent to subdomains, too. */
  readonly domain: string
  readonly path: string
  /** Seconds since 1970. */
  readonly expires: number
  readonly httpOnly: boolean
  readonly secure: boolean
  readonly sameSite?: string
}

/** Longest time of a command. */
const commandMs = 60_000

/** Starts Chromium, which accepts any certificate; ends it with the test. `hosts`: names that resolve to 127.0.0.1. */
export async function startChromium(t: Test, hosts: readonly string[]): Promise<Chromium> {
  const { path, env } = await tool('chromium')
  const profile = await mkdtemp(join(tmpdir(), 'jingwei-chromium-'))
  const flags = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--ignore-certificate-errors',
    '--remote-debugging-port=0',
    `--user-data-dir=${profile}`,
    `--host-resolver-rules=${hosts.map((host) => `MAP ${host} 127.0.0.1`).join(', ')}`
  ]
  const child = spawn(path, [...flags, 'about:blank'], { env, stdio: ['ignore', 'ignore', 'pipe'] })
  t.teardown(async () => {
    const exited = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : null
    child.kill('SIGKILL')
    await exited
    await rm(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
  })
  let address = ''
  createInterface(child.stderr).on('line', (line) => {
    address ||= /^DevTools listening on (ws:.*)$/.exec(line)?.[1] ?? ''
  })
  await eventually(() => address !== '' || child.exitCode !== null, 'Chromium listens')
  const socket = new WebSocket(address)
  t.teardown(() => socket.close())
  await once(socket, 'open')
  return new Chromium(socket)
}

export class Chromium {
  readonly #socket: WebSocket
  readonly #pending = new Map<number, (message: Message) => void>()
  #last = 0

  constructor(socket: WebSocket) {
    this.#socket = socket
    socket.addEventListener('message', ({ data }) => {
      const message = JSON.parse(String(data)) as Message
      if (message.id === undefined) return
      this.#pending.get(message.id)?.(message)
      this.#pending.delete(message.id)
    })
  }

  /** Sends a command; resolves with its result. */
  async command(method: string, params: Params = {}, sessionId?: string): Promise<Params> {
    const id = ++this.#last
    const response = Promise.withResolvers<Message>()
    this.#pending.set(id, response.resolve)
    const timer = setTimeout(() => response.resolve({ error: { message: `no response to ${method}` } }), commandMs)
    this.#socket.send(JSON.stringify({ id, method, params, sessionId }))
    const { error, result } = await response.promise
    clearTimeout(timer)
    if (error !== undefined) throw new Error(`${method}: ${error.message}`)
    return result ?? {}
  }

  /** Opens a profile of its own, without cookies. */
  async profile(): Promise<Profile> {
    const { browserContextId } = await this.command('Target.createBrowserContext')
    return new Profile(this, String(browserContextId))
  }
}

/** Cookies and tabs of one user. */
export class Profile {
  readonly #chromium: Chromium
  readonly #id: string

  constructor(chromium: Chromium, id: string) {
    this.#chromium = chromium
    this.#id = id
  }

  async tab(): Promise<Tab> {
    const target = { url: 'about:blank', browserContextId: this.#id }
    const { targetId } = await this.#chromium.command('Target.createTarget', target)
    const { sessionId } = await this.#chromium.command('Target.attachToTarget', { targetId, flatten: true })
    return new Tab(this.#chromium, String(sessionId))
  }

  async cookies(): Promise<StoredCookie[]> {
    const { cookies } = await this.#chromium.command('Storage.getCookies', { browserContextId: this.#id })
    return cookies as StoredCookie[]
  }
}

export class Tab {
  readonly #chromium: Chromium
  readonly #session: string

  constructor(chromium: Chromium, session: string) {
    this.#chromium = chromium
    this.#session = session
  }

  /** Opens a URL as its user does who types it. */
  async open(url: string): Promise<void> {
    const { errorText } = await this.#chromium.command('Page.navigate', { url }, this.#session)
    if (errorText !== undefined) throw new Error(`${url}: ${String(errorText)}`)
  }

  /** Runs a script as one of the page; resolves with its value, that of a promise once it has resolved. */
  async run<T>(expression: string): Promise<T> {
    const params = { expression, awaitPromise: true, returnByValue: true, userGesture: true }
    const { result, exceptionDetails } = await this.#chromium.command('Runtime.evaluate', params, this.#session)
    if (exceptionDetails !== undefined) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`)
    return (result as { value: T }).value
  }

  /** Resolves once a loaded page has this text; with the URL of the page. */
  async shows(text: string): Promise<string> {
    const script = `document.readyState === 'complete' && document.body.innerText.includes(${JSON.stringify(text)})`
    // A navigation destroys the page in which a script runs.
    await eventually(() => this.run<boolean>(script).catch(() => false), `a page with ${text}`).catch(async (error) => {
      throw new Error(`${String(error)}, but ${await this.run('location.href + " " + document.body.innerText')}`)
    })
    return this.run<string>('location.href')
  }

  /** Clicks the first element of this selector. */
  async click(selector: string): Promise<void> {
    await this.run(`document.querySelector(${JSON.stringify(selector)}).click()`)
  }
}
