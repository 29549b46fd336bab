/** What the panel "Experiments" shows; knows nothing of JupyterLab but its commands and icons. */

import type { LabIcon } from '@jupyterlab/ui-components';
import type { CommandRegistry } from '@lumino/commands';
import type { VNode } from 'preact';
import { useState } from 'preact/hooks';

import { aside, detail, filtered, shares, since, sorted, stateText } from './listing';
import { COMMANDS } from './settings';
import { integer } from './view/format';
import type { Connection, Listing } from './view/transport';
import type { Cluster, Summary, Verb } from './view/types';

const EXAMPLE = `%%sweep accuracy
rows = []
for n in [100, 200, 400]:
    for noise in [0.1, 0.2]:
        rows.append((n, noise, score(n, noise)))`;

export function Icon({ icon }: { icon: LabIcon }): VNode {
  return (
    <span
      class="mce-icon"
      aria-hidden="true"
      ref={node => {
        if (node && !node.hasChildNodes()) {
          icon.element({ container: node, stylesheet: 'menuItem' });
        }
      }}
    />
  );
}

export interface Acts {
  commands: CommandRegistry;
  icons: Record<'open' | 'stop' | 'expanded' | 'collapsed', LabIcon>;
  stopCluster(cluster: Cluster): void;
}

/** Which actions a sweep offers, in the order of their buttons. */
const OFFERED: Verb[] = ['cancel', 'pause', 'resume', 'rerun-failed', 'rerun-stale'];

function Action(props: { acts: Acts; command: string; sweep: Summary; label?: string }): VNode {
  const args = { key: props.sweep.key, name: props.sweep.name };
  const { commands } = props.acts;
  const icon = commands.icon(props.command, args) as LabIcon | undefined;
  const label = props.label ?? commands.label(props.command, args);
  return (
    <button
      type="button"
      class="mce-action"
      title={label}
      aria-label={`${label}: ${props.sweep.name}`}
      onClick={() => void commands.execute(props.command, args)}
    >
      <Icon icon={icon ?? props.acts.icons.open} />
    </button>
  );
}

function Item({ sweep, acts, folder }: { sweep: Summary; acts: Acts; folder: boolean }): VNode {
  const { known, failed } = shares(sweep);
  const open = () =>
    void acts.commands.execute(COMMANDS.open, { key: sweep.key, name: sweep.name });
  return (
    <li class={`mce-item mce-mod-${sweep.state}`}>
      <button
        type="button"
        class="mce-item-open"
        onClick={open}
        title={`${sweep.name} (${stateText(sweep)})\n${sweep.folder}${sweep.message ? `\n${sweep.message}` : ''}`}
      >
        <span class="mce-item-title">
          <span class="mce-item-name">{sweep.name}</span>
          <span class="mce-item-state">{aside(sweep)}</span>
        </span>
        <span class="mce-item-bar" aria-hidden="true">
          <span class="mce-item-known" style={{ width: `${known * 100}%` }} />
          <span
            class="mce-item-failed"
            style={{ left: `${(known - failed) * 100}%`, width: `${failed * 100}%` }}
          />
        </span>
        <span class="mce-item-detail">{detail(sweep)}</span>
        {sweep.message && !['running', 'done'].includes(sweep.state) ? (
          <span class="mce-item-detail mce-mod-message">{sweep.message}</span>
        ) : null}
        {folder ? <span class="mce-item-detail">{sweep.root}</span> : null}
      </button>
      <span class="mce-item-actions" role="group" aria-label={`Actions: ${sweep.name}`}>
        {OFFERED.filter(verb => sweep.actions.includes(verb)).map(verb => (
          <Action key={verb} acts={acts} command={COMMANDS.verb(verb)} sweep={sweep} />
        ))}
        <Action acts={acts} command={COMMANDS.reveal} sweep={sweep} />
        <Action acts={acts} command={COMMANDS.insert} sweep={sweep} />
      </span>
    </li>
  );
}

function ClusterItem({ cluster, acts }: { cluster: Cluster; acts: Acts }): VNode {
  const workers = `${integer(cluster.workers)} ${cluster.workers === 1 ? 'worker' : 'workers'}`;
  const cost =
    cluster.cost_per_hour === null ? '' : ` · ${cluster.cost_per_hour.toFixed(2)} per hour`;
  const sweeps = cluster.sweeps.length ? ` · ${cluster.sweeps.join(', ')}` : '';
  return (
    <li class="mce-item mce-mod-cluster">
      <span class="mce-item-open">
        <span class="mce-item-title">
          <span class="mce-item-name">{cluster.name}</span>
          <span class="mce-item-state">{cluster.state}</span>
        </span>
        <span class="mce-item-detail" title={cluster.address}>
          {workers}
          {cost}
          {sweeps}
          {cluster.since ? ` · ${since(cluster.since)}` : ''}
        </span>
        {cluster.message ? (
          <span class="mce-item-detail mce-mod-message">{cluster.message}</span>
        ) : null}
      </span>
      <span class="mce-item-actions">
        <button
          type="button"
          class="mce-action"
          title="Stop the cluster"
          aria-label={`Stop the cluster ${cluster.name}`}
          onClick={() => acts.stopCluster(cluster)}
        >
          <Icon icon={acts.icons.stop} />
        </button>
      </span>
    </li>
  );
}

function Empty({ commands }: { commands: CommandRegistry }): VNode {
  return (
    <div class="mce-empty">
      <p>No experiments yet. Write one line above nested loops and run the cell:</p>
      <pre>{EXAMPLE}</pre>
      <p>
        It returns at once; the loops run in parallel, and every result is kept. Progress appears
        here, also of sweeps that the command <code>mce run</code> starts.
      </p>
      <button
        type="button"
        class="mce-panel-button"
        disabled={!commands.hasCommand('mce:sweep-cell') || !commands.isEnabled('mce:sweep-cell')}
        onClick={() => void commands.execute('mce:sweep-cell')}
      >
        Sweep the active cell…
      </button>
    </div>
  );
}

const TROUBLE: Partial<Record<Connection, string>> = {
  lost: 'The server does not answer; trying again. Sweeps go on without it.',
  missing:
    'The server extension of mce_notebook is not enabled: run “jupyter server extension enable mce_notebook” and restart the server.'
};

/** Arrow keys go from entry to entry; the filter is the first. */
export function moveFocus(root: HTMLElement, event: KeyboardEvent): void {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step === undefined && event.key !== 'Home' && event.key !== 'End') {
    return;
  }
  const inFilter = (event.target as HTMLElement).tagName === 'INPUT';
  if (step === undefined && inFilter) {
    return;
  }
  const places = [
    ...root.querySelectorAll<HTMLElement>('input[type="search"], button.mce-item-open')
  ];
  const holder = (event.target as HTMLElement).closest('li')?.querySelector('button.mce-item-open');
  const now = places.indexOf((holder ?? event.target) as HTMLElement);
  const next =
    event.key === 'Home'
      ? Math.min(1, places.length - 1)
      : event.key === 'End'
        ? places.length - 1
        : now + (step ?? 0);
  if (next >= 0 && next < places.length) {
    places[next].focus();
    event.preventDefault();
    event.stopPropagation();
  }
}

interface Shown {
  listing: Listing | null;
  connection: Connection;
  acts: Acts;
}

export function Panel({ listing, connection, acts }: Shown): VNode {
  const [typed, setTyped] = useState('');
  const [clustersOpen, setClustersOpen] = useState(true);
  const sweeps = sorted(filtered(listing?.sweeps ?? [], typed));
  const clusters = listing?.clusters ?? [];
  const folders = new Set((listing?.sweeps ?? []).map(one => one.root)).size > 1;
  return (
    <div class="mce-panel" onKeyDown={event => moveFocus(event.currentTarget, event)}>
      <div class="mce-panel-head">
        <h2>Experiments</h2>
        <input
          type="search"
          class="mce-filter"
          placeholder="Filter by name, state, folder…"
          aria-label="Filter experiments"
          value={typed}
          onInput={event => setTyped(event.currentTarget.value)}
          onKeyDown={event => {
            if (event.key === 'Escape') {
              setTyped('');
            }
          }}
        />
      </div>
      {TROUBLE[connection] ? (
        <p class="mce-trouble" role="status">
          {TROUBLE[connection]}
        </p>
      ) : null}
      <div class="mce-panel-body">
        {listing && listing.sweeps.length === 0 ? <Empty commands={acts.commands} /> : null}
        {listing && listing.sweeps.length > 0 && sweeps.length === 0 ? (
          <p class="mce-empty" role="status">
            No experiment matches “{typed}”.
          </p>
        ) : null}
        {sweeps.length > 0 ? (
          <ul class="mce-list" aria-label="Experiments">
            {sweeps.map(sweep => (
              <Item key={sweep.key} sweep={sweep} acts={acts} folder={folders} />
            ))}
          </ul>
        ) : null}
        {clusters.length > 0 ? (
          <section class="mce-clusters">
            <h3>
              <button
                type="button"
                aria-expanded={clustersOpen}
                onClick={() => setClustersOpen(!clustersOpen)}
              >
                <Icon
                  key={String(clustersOpen)}
                  icon={clustersOpen ? acts.icons.expanded : acts.icons.collapsed}
                />
                Clusters ({clusters.length})
              </button>
            </h3>
            {clustersOpen ? (
              <ul class="mce-list" aria-label="Clusters">
                {clusters.map(cluster => (
                  <ClusterItem key={cluster.key} cluster={cluster} acts={acts} />
                ))}
              </ul>
            ) : null}
          </section>
        ) : null}
      </div>
    </div>
  );
}
