const { withHeaders } = require('jingwei/plugin')

module.exports = async function common(fastify) {
  const add = (dispatch) => (opts, handler) => dispatch(withHeaders(opts, { 'x-common': 'yes' }), handler)
  fastify.mesh.use(add, { per: 'attempt', name: 'common' })
}
