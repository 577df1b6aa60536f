// Runs a group of processes as a command: starts them, prints what to try, and stops all of them on Ctrl-C.

interface Group {
  stop(): Promise<void>
}

export async function runCommand<T extends Group>(
  startAll: () => Promise<T>,
  introduction: (started: T) => string
): Promise<void> {
  let group: T | undefined
  let interrupted = false
  const stop = async () => {
    if (interrupted) return
    interrupted = true
    console.log('\nstopping')
    await group?.stop()
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => void stop())
  try {
    console.log('starting …')
    group = await startAll()
    if (interrupted) await group.stop()
    else console.log(introduction(group))
  } catch (error) {
    if (interrupted) return
    console.error((error as Error).message)
    process.exitCode = 1
  }
}
