// slow: starts other programs
import t from 'tap'
import { fromList, fromStanzas } from './debian.ts'
import { tool } from './tools.ts'

t.test('a variable names the binary to use', async (t) => {
  t.teardown(() => delete process.env.JINGWEI_WRK)
  process.env.JINGWEI_WRK = '/nowhere/wrk'
  await t.rejects(tool('wrk'), /JINGWEI_WRK names \/nowhere\/wrk/)
  t.teardown(() => delete process.env.JINGWEI_NGINX)
  process.env.JINGWEI_NGINX = process.execPath
  t.equal((await tool('nginx')).path, process.execPath)
})

t.test("only Debian's archives of the machine's apt sources are used", async (t) => {
  const list = `
deb [signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib
deb-src http://mirror.example/debian bookworm main
deb http://mirror.example/debian-security bookworm-security main
deb http://mirror.example/ubuntu jammy main
deb https://packages.example/apt stable main
`
  t.strictSame(fromList(list), [
    'deb [signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib',
    'deb http://mirror.example/debian-security bookworm-security main'
  ])
  t.strictSame(fromList(list, 'bullseye'), ['deb [signed-by=/k.gpg] http://mirror.example/debian bullseye main'])

  const stanzas = `Types: deb deb-src
URIs: http://mirror.example/debian/
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://other.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://packages.example/node
Suites: nodistro
Components: main
`
  t.equal(fromStanzas(stanzas).length, 2)
  t.strictSame(fromStanzas(stanzas, 'bullseye'), [
    `Types: deb
URIs: http://mirror.example/debian/
Suites: bullseye
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .`
  ])
})
