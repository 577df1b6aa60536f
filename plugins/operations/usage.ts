/** The help text, and the command line that messages suggest. */
import { basename } from 'node:path'
import { home, isBuilt } from '../home.ts'

const byNode = 'node app.ts'

const usage = `jingwei: an API gateway in which the edge and the mesh never mix

  node app.ts [start [FILE]]      run the gateway
  node app.ts sidecar [FILE]      run the mesh half alone, beside one service: a file with "sidecar"; else sidecar.yaml
  node app.ts check [FILE]        report every fault of a configuration; start nothing
  node app.ts routes [FILE]       show each route: edge concerns, service, mesh concerns
  node app.ts explain FILE METHOD PATH
                                  show how a request would be handled: route, concerns, service, instances
                                  -H 'x-beta: 1'  --ip ADDRESS  --consumer NAME  --claims JSON  --listener NAME
  node app.ts schema [FILE]       print the JSON Schema for editors; with FILE, including the concerns of its plugins
  node app.ts import GATEWAY FILE print the configuration for a file of kong, traefik, apisix or krakend
  node app.ts init [FOLDER]       write a starter repository: configuration, plugin, tests, Dockerfile, CI
%COMMANDS%
  --config FILE   the configuration; else JINGWEI_CONFIG, else gateway.yaml in this folder, else an example
  --version, --help
`

/** Returns the help text for the command line in use. */
export function helpText(commands: readonly { readonly usage: string }[]): string {
  const text = usage.replace('%COMMANDS%', commands.map((command) => command.usage).join(''))
  const base = startedAs(undefined)
  const column = ' '.repeat(34 + base.length - byNode.length)
  return text.replaceAll(byNode, base).replaceAll(/^ {34}/gm, column)
}

/** Returns the command line for another command on the same configuration. */
export function startedAs(config: string | undefined): string {
  const base = program(process.env.npm_execpath !== undefined)
  return config === undefined ? base : `${base} -c ${config}`
}

/** Returns the command by which this program was started. */
function program(isByNpm: boolean): string {
  // In a checkout, npm finds the right Node where the one on PATH is too old.
  if (!isBuilt) return isByNpm ? 'npm -s start --' : byNode
  const isInstalled = /[\\/]node_modules[\\/]/.test(home) || basename(process.argv[1]!) === 'jingwei'
  if (!isInstalled) return 'node dist/app.js'
  return isByNpm ? 'npx jingwei' : 'jingwei'
}
