/** Hear of changes of the theme, whoever makes it: JupyterLab and VS Code mark the body, browsers have a preference. */

const listeners = new Set<() => void>();
let stop: (() => void) | null = null;

export function onTheme(listener: () => void): () => void {
  listeners.add(listener);
  stop ??= watch();
  return () => {
    listeners.delete(listener);
    if (listeners.size === 0) {
      stop?.();
      stop = null;
    }
  };
}

function watch(): () => void {
  let frame = 0;
  const tell = () => {
    cancelAnimationFrame(frame);
    // Style sheets of the new theme hold only after they have been applied.
    frame = requestAnimationFrame(() => listeners.forEach(listener => listener()));
  };
  const observer = new MutationObserver(tell);
  const options = {
    attributes: true,
    attributeFilter: ['class', 'style', 'theme', 'data-jp-theme-name', 'data-vscode-theme-kind']
  };
  observer.observe(document.body, options);
  observer.observe(document.documentElement, options);
  // JupyterLab loads the style sheet of a theme after it marked the body.
  document.addEventListener('load', onLoad, true);
  function onLoad(event: Event): void {
    if (event.target instanceof HTMLLinkElement) {
      tell();
    }
  }
  const queries = ['(prefers-color-scheme: dark)', '(forced-colors: active)']
    .map(query => window.matchMedia?.(query))
    .filter(Boolean);
  queries.forEach(query => query.addEventListener('change', tell));
  return () => {
    cancelAnimationFrame(frame);
    observer.disconnect();
    document.removeEventListener('load', onLoad, true);
    queries.forEach(query => query.removeEventListener('change', tell));
  };
}
