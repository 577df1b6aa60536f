/** The secret of `gateway.yaml`, which `npm start` runs: anybody can read it, and sign tokens with it. */
export const publishedSecret = 'for development only, change it in production'
