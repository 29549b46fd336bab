/** Everything known of one point: where it failed, what it printed, how to run it again. */

import { useEffect, useRef, useState } from 'preact/hooks';

import { Detail } from './Detail';
import { duration } from './format';
import { useAnswer } from './hooks';
import { named, title } from './statuses';
import { Swatch } from './Swatch';
import type { Transport } from './transport';
import type { PointDetail } from './types';

interface Props {
  sweep: string;
  index: number;
  transport: Transport;
  onBack(): void;
}

export function Point({ sweep, index, transport, onBack }: Props) {
  const path = `api/sweeps/${encodeURIComponent(sweep)}/points/${index}`;
  const answer = useAnswer(path, () => transport.get<PointDetail>(path));
  const { value } = answer;
  const status = value && named(value.status);
  const labels = Object.entries(value?.labels ?? {}).filter(([, label]) => label !== '');
  const values = Object.entries(value?.values ?? {});
  return (
    <Detail
      answer={answer}
      onBack={onBack}
      aside={
        status && (
          <span class="mce-status">
            <Swatch status={status} /> {title(status.name)}
          </span>
        )
      }
    >
      {value && (
        <>
          <p class="mce-labels">
            {labels.map(([name, label]) => (
              <span key={name}>
                <span class="mce-faint">{name}</span> {label}
              </span>
            ))}
          </p>
          {value.message && (
            <p class="mce-cause">
              {value.type && <strong>{value.type}: </strong>}
              {value.message}
            </p>
          )}
          {!value.message && value.cause && <p class="mce-cause">{value.cause}</p>}
          <p class="mce-faint">
            {[
              value.where && value.where !== 'point' ? `in ${value.where}` : '',
              value.seconds === null || value.seconds === undefined
                ? ''
                : `took ${duration(value.seconds)}`,
              value.worker ? `on ${value.worker}` : ''
            ]
              .filter(Boolean)
              .join(' · ')}
          </p>
          {values.length > 0 && (
            <dl class="mce-values">
              {values.map(([name, text]) => (
                <div key={name}>
                  <dt>{name}</dt>
                  <dd>{text || '–'}</dd>
                </div>
              ))}
            </dl>
          )}
          {value.replay && value.status !== 'pending' && <Replay line={value.replay} />}
          {value.traceback && <Text title="Traceback" text={value.traceback} />}
          {value.output && <Text title="Output" text={value.output} />}
        </>
      )}
    </Detail>
  );
}

function Text({ title: heading, text }: { title: string; text: string }) {
  const element = useRef<HTMLPreElement>(null);
  // The end says what went wrong.
  useEffect(() => {
    element.current!.scrollTop = element.current!.scrollHeight;
  }, [text]);
  return (
    <section>
      <h4>{heading}</h4>
      <pre ref={element} tabIndex={0} role="region" aria-label={heading}>
        {text}
      </pre>
    </section>
  );
}

function Replay({ line }: { line: string }) {
  const [copied, setCopied] = useState('');
  const code = useRef<HTMLElement>(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(line);
      setCopied('Copied');
    } catch {
      // Without a secure connection there is no clipboard: what is selected can be copied by hand.
      getSelection()?.selectAllChildren(code.current!);
      setCopied('Press Ctrl+C');
    }
  };
  useEffect(() => {
    const timer = copied ? setTimeout(() => setCopied(''), 2500) : undefined;
    return () => clearTimeout(timer);
  }, [copied]);
  return (
    <section>
      <h4>Run it here</h4>
      <div class="mce-replay">
        <code ref={code} tabIndex={0}>
          {line}
        </code>
        <button type="button" class="mce-button" onClick={copy}>
          <span aria-live="polite">{copied || 'Copy'}</span>
        </button>
      </div>
    </section>
  );
}
