import js from '@eslint/js';
import prettier from 'eslint-config-prettier';
import tseslint from 'typescript-eslint';

export default tseslint.config(
  { ignores: ['lib', 'node_modules', 'style', '.yarn'] },
  js.configs.recommended,
  ...tseslint.configs.strict,
  {
    files: ['**/*.{ts,tsx}'],
    rules: {
      '@typescript-eslint/no-extraneous-class': 'off',
      '@typescript-eslint/no-non-null-assertion': 'off',
      eqeqeq: 'error',
      'no-restricted-properties': [
        'error',
        { property: 'innerHTML', message: 'What comes from a sweep is text: set textContent.' },
        { property: 'outerHTML', message: 'What comes from a sweep is text: set textContent.' },
        { property: 'insertAdjacentHTML', message: 'What comes from a sweep is text.' }
      ],
      'no-restricted-syntax': [
        'error',
        {
          selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']",
          message: 'What comes from a sweep is text.'
        }
      ]
    }
  },
  {
    files: ['src/view/**/*.{ts,tsx}', 'src/widget.tsx'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          patterns: [
            {
              group: ['@jupyterlab/*', '@lumino/*', 'react'],
              message: 'The view also runs where there is no JupyterLab.'
            }
          ]
        }
      ]
    }
  },
  {
    files: ['scripts/**/*.mjs', 'tests/*.mjs', '*.mjs', '*.cjs', 'tests/*.cjs'],
    languageOptions: {
      globals: {
        process: 'readonly',
        console: 'readonly',
        module: 'writable',
        require: 'readonly',
        globalThis: 'readonly'
      }
    },
    // They run in Node or in jsdom, whose names a linter does not know.
    rules: { '@typescript-eslint/no-require-imports': 'off', 'no-undef': 'off' }
  },
  prettier
);
