import { meshConcern, Type } from 'jingwei/plugin'

declare module 'jingwei/plugin' {
  interface MeshPolicy {
    pace?: false | { header: string }
  }
}

export default meshConcern({
  name: 'pace',
  options: Type.Object({ header: Type.String() }),
  layer: (_service, policy, { log }) => {
    const { pace } = policy
    if (!pace) return null
    return (dispatch) => (opts, handler) => {
      log.info({ header: pace.header }, 'paced')
      return dispatch(opts, handler)
    }
  }
})
