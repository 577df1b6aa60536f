import t from 'tap'
import { ConfigError } from '../../config/load.ts'
import { parseConfig } from '../../plugins/config.ts'

// biome-ignore-start lint/suspicious/noTemplateCurlyInString: how a variable is written
const env = {
  PORT: '9090',
  WORD: 'word',
  EMPTY: '',
  YAML: 'x, port: 1, y: [',
  TRUE: 'true',
  LINES: 'a: 1\nb: 2',
  DOLLAR: '${PORT}'
}

/** Returns a value as a plugin gets it, since a plugin's options may be anything. */
function option(value: string): unknown {
  return parseConfig(`plugins:\n  - package: fastify\n    options:\n      value: ${value}\n`, 'gateway.yaml', env)
    .plugins[0]?.options
}

function faultsOf(value: string): unknown {
  try {
    return option(value)
  } catch (error) {
    return error instanceof ConfigError ? error.faults : error
  }
}

const table: Record<string, unknown> = {
  '${PORT}': { value: 9090 },
  '"${PORT}"': { value: '9090' },
  "'${PORT}'": { value: '9090' },
  '!!str ${PORT}': { value: '9090' },
  '${TRUE}': { value: true },
  '${PORT}0': { value: 90900 },
  'http://${WORD}:${PORT}': { value: 'http://word:9090' },
  '${NONE:-5}': { value: 5 },
  '${NONE:-a b}': { value: 'a b' },
  '${NONE:-http://h:1}': { value: 'http://h:1' },
  '${EMPTY:-5}': { value: 5 },
  '${PORT:-5}': { value: 9090 },
  '${EMPTY}': { value: null },
  '"${EMPTY}"': { value: '' },
  '${NONE:-}': {},
  '"${NONE:-}"': { value: '' },
  '[1, ${PORT}, ${WORD}]': { value: [1, 9090, 'word'] },
  '{ a: ${PORT}, b: ${NONE:-} }': { value: { a: 9090 } },
  '{ a: ${YAML} }': { value: { a: 'x, port: 1, y: [' } },
  '${LINES}': { value: 'a: 1\nb: 2' },
  '|-\n        ${WORD} ${PORT}': { value: 'word 9090' },
  '$${PORT}': { value: '${PORT}' },
  '"a $${b} $c $$d"': { value: 'a ${b} $c $$d' },
  '${DOLLAR}': { value: '${PORT}' },
  '{ ${PORT}: 1 }': { value: { '${PORT}': 1 } }
}

for (const [written, read] of Object.entries(table)) {
  t.test(`${written} is expanded`, async (t) => t.strictSame(option(written), read))
}

t.test('variables that are unset or malformed are faults', async (t) => {
  const malformed = 'malformed variable: write ${NAME} or ${NAME:-default}, and $${ for the characters themselves'
  const bad: Record<string, string> = {
    '${NONE}': 'environment variable NONE is not set, and has no default',
    '"x ${NONE} y"': 'environment variable NONE is not set, and has no default',
    '"${NONE-5}"': malformed,
    '"${1}"': malformed,
    '"${}"': malformed,
    '"${PORT"': malformed,
    '"${NONE:-${PORT}}"': malformed
  }
  for (const [written, message] of Object.entries(bad)) {
    const faults = [{ file: 'gateway.yaml', line: 4, column: 14, path: 'plugins[0].options.value', message }]
    t.strictSame(faultsOf(written), faults, written)
  }
})

t.test('variables in comments are ignored', async (t) => {
  t.doesNotThrow(() => parseConfig('# ${NONE}\nadmin: false # ${ALSO}\n', 'gateway.yaml', env))
})

t.test('a concern set to an empty variable is a fault, and not switched off', async (t) => {
  t.throws(() => parseConfig('edge:\n  jwt: ${EMPTY}\n', 'gateway.yaml', env), ConfigError)
})
// biome-ignore-end lint/suspicious/noTemplateCurlyInString: how a variable is written
