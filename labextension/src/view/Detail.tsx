/** One step into the details: a way back, and what is there once it is known. */

import type { ComponentChildren } from 'preact';
import { useEffect, useRef } from 'preact/hooks';

import type { Answer } from './hooks';

interface Props {
  answer: Answer<unknown>;
  onBack(): void;
  /** Stands beside the way back. */
  aside: ComponentChildren;
  children: ComponentChildren;
}

export function Detail({ answer: { value, error, loading }, onBack, aside, children }: Props) {
  const back = useRef<HTMLButtonElement>(null);
  useEffect(() => back.current?.focus({ preventScroll: true }), []);
  return (
    <div class="mce-point">
      <div class="mce-crumbs">
        <button type="button" class="mce-link" ref={back} onClick={onBack}>
          ‹ Back
        </button>
        {aside}
      </div>
      {error && (
        <p class="mce-error" role="alert">
          {error}
        </p>
      )}
      {loading && !value && <p class="mce-faint">Loading…</p>}
      {children}
    </div>
  );
}
