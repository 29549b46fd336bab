/** How far a sweep is: state, bar, facts, and what can be done about it. */

import { useState } from 'preact/hooks';

import { cost, duration, integer, left, moment, percent, points, rate } from './format';
import { named, ORDER, title } from './statuses';
import { Swatch } from './Swatch';
import { told, type Connection, type Transport } from './transport';
import type { State, Summary, Verb } from './types';

export const STATES: Record<State, string> = {
  queued: 'Queued',
  running: 'Running',
  paused: 'Paused',
  done: 'Done',
  cancelled: 'Stopped',
  stopped: 'Stopped early',
  interrupted: 'Interrupted'
};

const VERBS: Record<Verb, [label: string, hint: string]> = {
  pause: ['Pause', 'Finish the points that run, then wait'],
  resume: ['Resume', 'Go on with what is left'],
  cancel: ['Stop', 'Stop now; what is done is kept'],
  'rerun-failed': ['Rerun failed', 'Run the failed points again'],
  'rerun-stale': ['Rerun stale', 'Run the points again whose code has changed']
};

/** In this order, whatever order they arrive in. */
const PLACES: Verb[] = ['resume', 'pause', 'cancel', 'rerun-failed', 'rerun-stale'];

const ENDED: ReadonlySet<State> = new Set<State>(['done', 'cancelled', 'stopped', 'interrupted']);

/** What is known of a sweep before, or without, a server: some fields of its summary. */
export type Last = Partial<Summary>;

interface Props {
  name: string;
  summary: Last;
  live: boolean;
  connection: Connection;
  /** Text in place of the message: why nothing is live. */
  trouble: string;
  transport: Transport;
  sweep: string;
}

export function Progress({ name, summary, live, connection, trouble, transport, sweep }: Props) {
  const [busy, setBusy] = useState<Verb | null>(null);
  const [note, setNote] = useState<{ text: string; bad: boolean; state?: State } | null>(null);
  const state = summary.state;
  const total = summary.total ?? 0;
  const known = summary.known ?? 0;
  // A saved state is history, and what it expected with it.
  const seen = !live && (connection === 'missing' || trouble !== '');
  const actions = live ? PLACES.filter(verb => summary.actions?.includes(verb)) : [];

  async function act(verb: Verb): Promise<void> {
    setBusy(verb);
    setNote(null);
    try {
      const path = `api/sweeps/${encodeURIComponent(sweep)}/actions`;
      const answer = await transport.post<{ message?: string }>(path, { verb });
      setNote(answer.message ? { text: answer.message, bad: false, state } : null);
    } catch (error) {
      setNote({ text: `${VERBS[verb][0]}: ${told(error)}`, bad: true });
    }
    setBusy(null);
  }

  // What an action answered is history once the sweep has gone on.
  const shown = note && (note.bad || note.state === state) ? note : null;
  const message = trouble || shown?.text || summary.message || hint(state);
  const bad = Boolean(shown?.bad && !trouble);
  return (
    <header class="mce-head">
      <div class="mce-title">
        <h3>{name}</h3>
        {state && state in STATES && (
          <span class={`mce-state mce-is-${state}`}>
            <StateIcon state={state} />
            {seen ? `Last seen ${STATES[state].toLowerCase()}` : STATES[state]}
          </span>
        )}
        {connection === 'lost' && <span class="mce-chip">Reconnecting…</span>}
        <div class="mce-actions" role="group" aria-label={`Actions on ${name}`}>
          {actions.map(verb => (
            <button
              type="button"
              key={verb}
              class="mce-button"
              title={VERBS[verb][1]}
              disabled={busy !== null || connection !== 'open'}
              onClick={() => act(verb)}
            >
              <VerbIcon verb={verb} />
              {VERBS[verb][0]}
            </button>
          ))}
        </div>
      </div>
      <Bar summary={summary} name={name} />
      <p class="mce-facts">
        {total > 0 ? (
          facts(live ? summary : { ...summary, eta: null, rate: 0, workers: 0 }, known, total).map(
            ([kind, text]) => (
              <span key={kind} class={`mce-fact-${kind}`}>
                {text}
              </span>
            )
          )
        ) : (
          <span class="mce-faint">{connection === 'connecting' ? 'Connecting…' : ''}</span>
        )}
      </p>
      <p
        class={bad ? 'mce-message mce-error' : 'mce-message'}
        title={message}
        role={bad ? 'alert' : 'status'}
      >
        {message}
      </p>
      <Announcer name={name} summary={summary} />
    </header>
  );
}

function facts(summary: Last, known: number, total: number): [string, string][] {
  const state = summary.state;
  const workers = summary.workers ?? 0;
  const ended = state !== undefined && ENDED.has(state);
  const found: [string, string][] = [
    ['share', percent(known, total)],
    ['points', points(known, total)],
    ['left', left(summary.eta ?? null)],
    ['rate', rate(state === 'running' ? (summary.rate ?? 0) : 0)],
    ['workers', workers ? `${integer(workers)} worker${workers === 1 ? '' : 's'}` : ''],
    ['elapsed', ended && (summary.elapsed ?? 0) >= 1 ? `in ${duration(summary.elapsed!)}` : ''],
    ['cost', cost(summary.cost ?? null)]
  ];
  return found.filter(([, text]) => text);
}

function hint(state: State | undefined): string {
  return state === 'interrupted'
    ? 'The process that ran it is gone. Resume goes on with what is left.'
    : '';
}

function Bar({ summary, name }: { summary: Last; name: string }) {
  const total = Math.max(summary.total ?? 0, 1);
  const known = summary.known ?? 0;
  const counts = summary.counts;
  return (
    <div
      class="mce-meter"
      role="progressbar"
      aria-label={`Points of ${name} known`}
      aria-valuemin={0}
      aria-valuemax={summary.total ?? 0}
      aria-valuenow={known}
      aria-valuetext={
        summary.total || !summary.message ? points(known, summary.total ?? 0) : summary.message
      }
    >
      {counts &&
        ORDER.filter(status => status !== 'pending' && counts[status] > 0).map(status => (
          <span
            key={status}
            class={`mce-part mce-part-${status}`}
            title={`${integer(counts[status])} ${title(status)}`}
            style={{
              flexBasis: `${(100 * counts[status]) / total}%`,
              background: `var(${named(status)!.colour})`
            }}
          />
        ))}
    </div>
  );
}

/** Says aloud what matters: another state, and every quarter of the way. */
function Announcer({ name, summary }: { name: string; summary: Last }) {
  const total = summary.total ?? 0;
  const quarter = total ? Math.floor((4 * (summary.known ?? 0)) / total) * 25 : 0;
  const state = summary.state ? (STATES[summary.state] ?? summary.state).toLowerCase() : '';
  return (
    <div class="mce-hidden" aria-live="polite">
      {state && `${name} ${state}, ${quarter} % known`}
    </div>
  );
}

/** How many points are in each state; also the key to the colours of the map. */
export function Legend({ counts }: { counts: Summary['counts'] }) {
  return (
    <ul class="mce-legend" aria-label="Points by status">
      {[...ORDER]
        .filter(status => status === 'done' || status === 'pending' || counts[status] > 0)
        .map(status => (
          <li key={status}>
            <Swatch status={named(status)!} />
            {title(status)} <span class="mce-faint">{integer(counts[status])}</span>
          </li>
        ))}
    </ul>
  );
}

export function About({
  summary,
  provenance
}: {
  summary: Summary;
  provenance?: Record<string, string | number>;
}) {
  const rows: [string, string][] = [
    ['Runs on', summary.cluster],
    ['Declared', moment(String(provenance?.declared ?? summary.created))],
    ['Code version', String(provenance?.version ?? '').slice(0, 12)],
    ['Python', String(provenance?.python ?? '')],
    ['Seed', String(provenance?.seed ?? '')],
    ['Folder', summary.folder]
  ];
  return (
    <dl class="mce-values mce-about">
      {rows
        .filter(([, text]) => text)
        .map(([label, text]) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd title={text}>{text}</dd>
          </div>
        ))}
    </dl>
  );
}

const STATE_ICONS: Record<State, string> = {
  queued: 'M8 4.5V8l2.3 1.6',
  running: 'M6.5 5.2 11 8l-4.5 2.8z',
  paused: 'M6.3 5.5v5M9.7 5.5v5',
  done: 'M5 8.2 7.2 10.4 11.2 5.8',
  cancelled: 'M6 6h4v4H6z',
  stopped: 'M6 6h4v4H6z',
  interrupted: 'M8 4.6v4M8 10.9v.4'
};

function StateIcon({ state }: { state: State }) {
  return (
    <svg viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <circle cx="8" cy="8" r="6.2" />
      <path d={STATE_ICONS[state] ?? ''} />
    </svg>
  );
}

const VERB_ICONS: Record<Verb, string> = {
  pause: 'M5.5 4v8M10.5 4v8',
  resume: 'M5 3.5 12 8l-7 4.5z',
  cancel: 'M4.5 4.5h7v7h-7z',
  'rerun-failed': 'M12.5 8A4.5 4.5 0 1 1 11 4.6M11.3 2v3H8.2',
  'rerun-stale': 'M12.5 8A4.5 4.5 0 1 1 11 4.6M11.3 2v3H8.2'
};

function VerbIcon({ verb }: { verb: Verb }) {
  return (
    <svg viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={VERB_ICONS[verb]} />
    </svg>
  );
}
