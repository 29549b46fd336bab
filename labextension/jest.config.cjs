// JupyterLab's packages are ES modules; esbuild, which also bundles the widget, makes them readable for Node.
module.exports = {
  testEnvironment: 'jsdom',
  // Accessibility checks of a whole view take seconds on a busy machine.
  testTimeout: 60000,
  testMatch: ['<rootDir>/tests/**/*.test.{ts,tsx}'],
  moduleFileExtensions: ['ts', 'tsx', 'mjs', 'js', 'json', 'node'],
  moduleNameMapper: {
    '\\.(css|svg)(\\?.*)?$': '<rootDir>/tests/empty.cjs'
  },
  setupFiles: ['<rootDir>/tests/setup.cjs'],
  transform: { '\\.(ts|tsx|mjs|js)$': '<rootDir>/tests/transform.cjs' },
  transformIgnorePatterns: [
    '/node_modules/(?!(@jupyter|@jupyterlab|@lumino|@codemirror|@lezer|@marijn|@microsoft|exenv-es6|lib0|nanoid|preact|y-protocols|y-websocket|yjs|crelt|style-mod|w3c-keyname|@rjsf)/)'
  ]
};
