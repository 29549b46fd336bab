// The view as one ES module with its styles, for front ends without our extension (anywidget).
import { build } from 'esbuild';

const development = process.argv.includes('--development');

await build({
  entryPoints: ['src/widget.tsx'],
  outfile: '../mce_notebook/frontends/static/widget.js',
  bundle: true,
  format: 'esm',
  target: 'es2022',
  jsx: 'automatic',
  jsxImportSource: 'preact',
  loader: { '.css': 'text' },
  minify: !development,
  sourcemap: development ? 'inline' : false,
  legalComments: 'inline',
  logLevel: 'warning'
});
