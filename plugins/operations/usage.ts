/** The help text, and the command line by which a person calls the gateway. */

const byNode = 'node app.ts'

const usage = `jingwei: an API gateway in which the edge and the mesh never mix

  node app.ts [start]             run the gateway
  node app.ts check [FILE]        say all that is wrong with a configuration; start nothing
  node app.ts routes [FILE]       show each route: edge concerns, service, mesh concerns
  node app.ts explain FILE METHOD PATH
                                  what would become of a request: route, concerns, service, instances
                                  -H 'x-beta: 1'  --ip ADDRESS  --consumer NAME  --listener NAME
  node app.ts schema [FILE]       print the configuration's JSON Schema, for editors; of FILE, with its plugins' concerns
%COMMANDS%
  --config FILE   the configuration; else JINGWEI_CONFIG, else config/gateway.yaml
  --version, --help
`

/** Returns the help text for the command line that was used: with an older Node on PATH, only that of npm works. */
export function helpText(commands: readonly { readonly usage: string }[]): string {
  const text = usage.replace('%COMMANDS%', commands.map((command) => command.usage).join(''))
  const base = startedAs(undefined)
  const indent = ' '.repeat(base.length - byNode.length)
  return text.replaceAll(byNode, base).replaceAll(/^ {30}/gm, `$&${indent}`)
}

/** Returns the command line for another command on the same configuration: through npm if npm found the right Node. */
export function startedAs(config: string | undefined): string {
  const base = process.env.npm_execpath === undefined ? byNode : 'npm -s start --'
  return config === undefined ? base : `${base} -c ${config}`
}
