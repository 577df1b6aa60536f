#!/usr/bin/env node
/**
 * The command `jingwei`. Node opens its inspector on SIGUSR1 unless the signal has a listener, so this comes before
 * anything else is loaded. An option of Node in the first line would take `env -S`, which Alpine's BusyBox lacks; where
 * the signal must not count even in the first moment, run `node --disable-sigusr1`.
 */
process.on('SIGUSR1', () => {})

const { main } = await import('../app.ts')
await main(process.argv.slice(2))
