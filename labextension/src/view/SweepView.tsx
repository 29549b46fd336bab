/** The live view of one sweep, wherever it is shown. */

import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';

import { CellPoints, type Picked } from './CellPoints';
import { Failures } from './Failures';
import { integer } from './format';
import { Heatmap } from './Heatmap';
import { lookOf } from './memory';
import { Point } from './Point';
import { About, Legend, Progress, type Last } from './Progress';
import { Selectors } from './Selectors';
import { ORDER, title } from './statuses';
import type { Choice, Connection, Transport, Watch } from './transport';
import type { Summary, View } from './types';

export interface Props {
  /** The random id of the sweep. */
  sweep: string;
  name: string;
  transport: Transport;
  /** Shown until the first answer, and when there never is one. */
  last?: Last;
  /** A PNG in base64, shown while there is no live map. */
  picture?: string;
  /** Fills the height there is, rather than a height of its own. */
  fill?: boolean;
}

const START: Choice = { x: null, y: null, at: {} };
const MISSING =
  'Not live: the Jupyter server runs without the mce_notebook extension. ' +
  'Enable it with "jupyter server extension enable mce_notebook" and restart the server.';

export function SweepView({ sweep, name, transport, last, picture, fill }: Props) {
  const [view, setView] = useState<View | null>(null);
  const [connection, setConnection] = useState<Connection>('connecting');
  const [gone, setGone] = useState('');
  const [error, setError] = useState('');
  const [path, setPath] = useState<Step[]>([]);
  const [cause, setCause] = useState<string | null>(null);
  const watch = useRef<Watch | null>(null);

  useEffect(() => {
    setView(null);
    setGone('');
    setPath([]);
    watch.current = transport.watch(sweep, lookOf(sweep).choice ?? START, {
      view: found => {
        setView(found);
        setGone('');
        setError('');
      },
      gone: message => setGone(message || 'This sweep is not there any more.'),
      error: setError,
      connection: setConnection
    });
    return () => {
      watch.current?.dispose();
      watch.current = null;
    };
  }, [sweep, transport]);

  const summary: Last = view ?? last ?? {};
  const trouble = gone || (connection === 'missing' ? MISSING : '') || error;
  const step = path[path.length - 1];
  // Each step begins at its top; going back finds the list where it was left.
  const pane = useRef<HTMLElement>(null);
  const scrolled = useRef<number[]>([]);
  const go = (next: Step[]) => {
    scrolled.current.length = Math.min(scrolled.current.length, path.length);
    scrolled.current[path.length] = pane.current?.scrollTop ?? 0;
    setPath(next);
  };
  const back = () => setPath(path.slice(0, -1));
  useLayoutEffect(() => {
    if (pane.current) {
      pane.current.scrollTop = scrolled.current[path.length] ?? 0;
      scrolled.current.length = Math.min(scrolled.current.length, path.length);
    }
  }, [path]);
  const chosen = (choice: Choice) => {
    lookOf(sweep).choice = choice;
    watch.current?.choose(choice);
  };
  return (
    <article
      class={fill ? 'mce-view mce-fill' : 'mce-view'}
      aria-label={`Sweep ${name}`}
      // Keys pressed in here are meant for what is in here, not for the notebook's commands.
      data-lm-suppress-shortcuts="true"
    >
      <Progress
        name={view?.name ?? name}
        summary={summary}
        live={view !== null && !gone}
        connection={connection}
        trouble={trouble}
        transport={transport}
        sweep={sweep}
      />
      {(view || picture || !trouble) && (
        <div class={bodyClass(view)}>
          <section class="mce-left" aria-label="Points">
            {view?.heatmap ? (
              <>
                <Heatmap
                  data={view.heatmap}
                  axes={view.axes}
                  memory={lookOf(sweep)}
                  summary={sentence(view)}
                  onPick={(column, row) => {
                    const { x, y, at } = view.heatmap!;
                    go([{ kind: 'cell', picked: { column, row, choice: { x, y, at } } }]);
                  }}
                >
                  <Selectors axes={view.axes} heatmap={view.heatmap} onChoose={chosen} />
                </Heatmap>
              </>
            ) : (
              !view && <Placeholder picture={picture} name={name} />
            )}
            {view && <Legend counts={view.counts} />}
          </section>
          <section class="mce-right" ref={pane} aria-label={step ? 'Point' : 'Failures'}>
            {step?.kind === 'point' && (
              <Point sweep={sweep} index={step.index} transport={transport} onBack={back} />
            )}
            {step?.kind === 'cell' && (
              <CellPoints
                sweep={sweep}
                picked={step.picked}
                transport={transport}
                onBack={back}
                onPoint={(index, only) =>
                  go([...(only ? path.slice(0, -1) : path), { kind: 'point', index }])
                }
              />
            )}
            {!step && view && (
              <Overview
                view={view}
                transport={transport}
                cause={cause}
                onCause={setCause}
                onPoint={index => go([{ kind: 'point', index }])}
              />
            )}
          </section>
        </div>
      )}
    </article>
  );
}

/** The picture that was saved with the notebook, until there is something better. */
function Placeholder({ picture, name }: { picture?: string; name: string }) {
  return (
    <div class="mce-placeholder">
      {picture ? (
        <img src={`data:image/png;base64,${picture}`} alt={`${name} when the notebook was saved`} />
      ) : (
        'Waiting for the first look…'
      )}
    </div>
  );
}

/** How high it is depends on what never changes while one looks. */
function bodyClass(view: View | null): string {
  if (!view || view.heatmap?.y) {
    return 'mce-body';
  }
  return view.heatmap ? 'mce-body mce-low' : 'mce-body mce-mapless';
}

type Step = { kind: 'point'; index: number } | { kind: 'cell'; picked: Picked };

interface OverviewProps {
  view: View;
  transport: Transport;
  cause: string | null;
  onCause(cause: string | null): void;
  onPoint(index: number): void;
}

function Overview({ view, transport, cause, onCause, onPoint }: OverviewProps) {
  const bad = view.counts.failed + view.counts.killed + view.counts.timeout;
  return (
    <>
      <h4>
        Failures <span class="mce-count">{integer(bad)}</span>
      </h4>
      {bad > 0 ? (
        <Failures
          view={view}
          transport={transport}
          open={cause}
          onOpen={onCause}
          onPoint={onPoint}
        />
      ) : (
        <p class="mce-faint">{none(view)}</p>
      )}
      {view.problems.length > 0 && (
        <>
          <h4>Problems</h4>
          <ul class="mce-problems">
            {view.problems.map(problem => (
              <li key={problem}>{problem}</li>
            ))}
          </ul>
        </>
      )}
      <h4>About</h4>
      <About summary={view} provenance={view.provenance} />
    </>
  );
}

/** Why there is no failure to show. */
function none({ total, known, state }: View): string {
  // Before that, a slow guard may be evaluated still, and nobody knows how many points there are.
  if (total === 0 && state === 'done') {
    return 'The grid has no points: its guards leave none.';
  }
  return known === 0 ? 'No point has run yet.' : state === 'done' ? 'None.' : 'None so far.';
}

/** The map in words. */
function sentence({ counts, total }: Pick<Summary, 'counts' | 'total'>): string {
  const parts = ORDER.filter(status => counts[status] > 0).map(
    status => `${integer(counts[status])} ${title(status)}`
  );
  return `Of ${integer(total)} points: ${parts.join(', ') || 'none known'}.`;
}
