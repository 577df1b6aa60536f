// A user's plugin that cannot start.
export default async function failing() {
  throw new Error('this plugin fails to start')
}
