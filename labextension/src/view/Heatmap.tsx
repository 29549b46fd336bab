/** The status of all points over two axes: pan, zoom, look at single cells. */

import type { ComponentChildren } from 'preact';
import { useCallback, useEffect, useMemo, useRef, useState } from 'preact/hooks';

import * as camera from './camera';
import { decode, type Cells } from './cells';
import { integer } from './format';
import type { Look } from './memory';
import { Painter } from './painter';
import { EXCLUDED, statusOf, title } from './statuses';
import { onTheme } from './theme';
import { labelOf } from './ticks';
import type { Axis, Heatmap as Data } from './types';

interface Props {
  data: Data;
  axes: Axis[];
  /** Where the part one looks at is kept. */
  memory: Look;
  /** One sentence on the whole, for those who do not see the map. */
  summary: string;
  onPick(column: number, row: number): void;
  /** Stands above the map, beside the buttons that zoom. */
  children?: ComponentChildren;
}

interface Tip {
  x: number;
  y: number;
  lines: [string, string][];
  status: string;
}

const STEP = 0.8;
/** A press that moves less than this is a click. */
const SLOP = 4;

export function Heatmap({ data, axes, memory, summary, onPick, children }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const painter = useRef<Painter | null>(null);
  const axesShown = JSON.stringify([data.x, data.y]);
  const look = useRef<camera.Camera>(remembered(memory, axesShown, data));
  const size = useRef<[number, number]>([data.width, data.height]);
  const cursor = useRef<[number, number] | null>(null);
  const focused = useRef(false);
  const waiting = useRef(0);
  const [tip, setTip] = useState<Tip | null>(null);
  const [near, setNear] = useState(() => camera.zoomed(look.current, data.width, data.height));
  const [spoken, setSpoken] = useState('');
  const [problem, setProblem] = useState('');

  const x = axes.find(axis => axis.name === data.x) ?? axes[0];
  const y = data.y === null ? null : (axes.find(axis => axis.name === data.y) ?? null);
  const scene = useRef({ x, y, bin: data.bin });
  scene.current = { x, y, bin: data.bin };

  const redraw = useCallback(() => {
    // Any number of reasons to draw in one frame are one drawing.
    if (!waiting.current) {
      waiting.current = requestAnimationFrame(() => {
        waiting.current = 0;
        painter.current?.draw({
          ...scene.current,
          camera: look.current,
          cursor: cursor.current,
          focused: focused.current
        });
      });
    }
  }, []);

  const move = useCallback(
    (next: camera.Camera) => {
      look.current = next;
      const [width, height] = size.current;
      memory.part = { axes: axesShown, width, height, camera: next };
      setNear(camera.zoomed(next, width, height));
      redraw();
    },
    [redraw, memory, axesShown]
  );

  // The painter lives as long as the canvas.
  useEffect(() => {
    const element = canvas.current!;
    painter.current = new Painter(element);
    const observer = new ResizeObserver(() => {
      painter.current?.resize(
        element.clientWidth,
        element.clientHeight,
        window.devicePixelRatio || 1
      );
      redraw();
    });
    observer.observe(element);
    painter.current.resize(element.clientWidth, element.clientHeight, window.devicePixelRatio || 1);
    const forget = onTheme(() => {
      painter.current?.restyle();
      redraw();
    });
    return () => {
      observer.disconnect();
      forget();
      cancelAnimationFrame(waiting.current);
      waiting.current = 0;
    };
  }, [redraw]);

  // New cells: decoded aside; a slower older one must not replace a newer one.
  useEffect(() => {
    let current = true;
    decode(data.cells, data.width, data.height).then(
      cells => {
        if (current) {
          accept(cells);
          setProblem('');
        }
      },
      (error: Error) => current && setProblem(`The heatmap cannot be read: ${error.message}`)
    );
    return () => {
      current = false;
    };
  }, [data.cells, data.width, data.height]);

  // Other axes are another map: nothing of the old look makes sense there.
  const axesBefore = useRef(axesShown);
  useEffect(() => {
    if (axesShown !== axesBefore.current) {
      axesBefore.current = axesShown;
      cursor.current = null;
      setTip(null);
      move(camera.whole(...size.current));
    }
  }, [axesShown, move]);

  function accept(cells: Cells): void {
    const to: [number, number] = [cells.width, cells.height];
    if (to[0] !== size.current[0] || to[1] !== size.current[1]) {
      // Another grid, as after an extension: what one looked at is elsewhere now.
      cursor.current = null;
      look.current = camera.whole(...to);
    }
    size.current = to;
    painter.current?.setCells(cells);
    setNear(camera.zoomed(look.current, ...to));
    redraw();
  }

  /** Place in the map as shares from the lower left, from a place in the window. */
  function place(clientX: number, clientY: number): [number, number] {
    const box = canvas.current!.getBoundingClientRect();
    const frame = painter.current!.frame(scene.current);
    return [
      (clientX - box.left - frame.left) / frame.width,
      1 - (clientY - box.top - frame.top) / frame.height
    ];
  }

  function describe(column: number, row: number): Omit<Tip, 'x' | 'y'> | null {
    const cells = painter.current?.known;
    if (!cells) {
      return null;
    }
    const cell = row * cells.width + column;
    const code = cells.status[cell];
    const lines: [string, string][] = [[x.name, labelOf(x, column, data.bin[0])]];
    if (y) {
      lines.push([y.name, labelOf(y, row, data.bin[1])]);
    }
    if (code === EXCLUDED) {
      return { lines, status: 'no point here' };
    }
    const name = title(statusOf(code)?.name ?? 'unknown');
    const share = cells.share[cell];
    const several = share > 0 && share < 255;
    return {
      lines,
      status: several ? `${name} (${Math.round((100 * share) / 255)} % known)` : name
    };
  }

  function point(column: number, row: number, speak: boolean): void {
    cursor.current = [column, row];
    const told = describe(column, row);
    if (told) {
      const frame = painter.current!.frame(scene.current);
      const { left, bottom, across, up } = look.current;
      setTip({
        ...told,
        x: frame.left + ((column + 0.5 - left) * frame.width) / across,
        y: frame.top + frame.height - ((row + 0.5 - bottom) * frame.height) / up
      });
      if (speak) {
        setSpoken(
          `${told.lines.map(([name, label]) => `${name} ${label}`).join(', ')}: ${told.status}`
        );
      }
    }
    redraw();
  }

  function leave(): void {
    cursor.current = null;
    setTip(null);
    redraw();
  }

  const press = useRef<{ x: number; y: number; look: camera.Camera; moved: boolean } | null>(null);

  function onPointerDown(event: PointerEvent): void {
    if (event.button === 0) {
      press.current = { x: event.clientX, y: event.clientY, look: look.current, moved: false };
      (event.currentTarget as Element).setPointerCapture?.(event.pointerId);
    }
  }

  function onPointerMove(event: PointerEvent): void {
    const start = press.current;
    if (
      start &&
      (start.moved || Math.hypot(event.clientX - start.x, event.clientY - start.y) > SLOP)
    ) {
      start.moved = true;
      setTip(null);
      cursor.current = null;
      const frame = painter.current!.frame(scene.current);
      const right = (start.x - event.clientX) / frame.width;
      const up = (event.clientY - start.y) / frame.height;
      move(camera.pan(start.look, right, up, ...size.current));
      return;
    }
    const cell = camera.cellAt(
      look.current,
      ...place(event.clientX, event.clientY),
      ...size.current
    );
    if (!cell) {
      leave();
    } else if (cursor.current?.[0] !== cell[0] || cursor.current[1] !== cell[1] || !tip) {
      point(...cell, false);
    }
  }

  function onPointerUp(event: PointerEvent): void {
    const start = press.current;
    press.current = null;
    if (start && !start.moved) {
      const cell = camera.cellAt(
        look.current,
        ...place(event.clientX, event.clientY),
        ...size.current
      );
      if (cell) {
        onPick(...cell);
      }
    }
  }

  // The wheel scrolls the page until the map has the focus: maps that catch the wheel in passing are traps.
  useEffect(() => {
    const element = canvas.current!;
    const turn = (event: WheelEvent) => {
      if (!focused.current && !event.ctrlKey && !event.metaKey) {
        return;
      }
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      const factor = Math.exp(Math.max(-1, Math.min(1, (event.deltaY * lines) / 300)));
      move(
        camera.zoom(look.current, factor, ...place(event.clientX, event.clientY), ...size.current)
      );
    };
    element.addEventListener('wheel', turn, { passive: false });
    return () => element.removeEventListener('wheel', turn);
  }, [move]);

  const center = (factor: number) =>
    move(camera.zoom(look.current, factor, 0.5, 0.5, ...size.current));

  function walk(right: number, up: number): void {
    const [width, height] = size.current;
    const from = cursor.current ?? camera.cellAt(look.current, 0.5, 0.5, width, height) ?? [0, 0];
    // On a crowded map one cell is less than a pixel: a step is what can be seen.
    const frame = painter.current!.frame(scene.current);
    const stride = (cells: number, pixels: number) => Math.max(1, Math.round((4 * cells) / pixels));
    const column = from[0] + right * stride(look.current.across, frame.width);
    const row = from[1] + up * stride(look.current.up, frame.height);
    const to: [number, number] = [
      Math.min(Math.max(column, 0), width - 1),
      Math.min(Math.max(row, 0), height - 1)
    ];
    move(camera.reveal(look.current, ...to, width, height));
    point(...to, true);
  }

  const keys: Record<string, () => void> = {
    ArrowLeft: () => walk(-1, 0),
    ArrowRight: () => walk(1, 0),
    ArrowUp: () => walk(0, 1),
    ArrowDown: () => walk(0, -1),
    'Shift+ArrowLeft': () => move(camera.pan(look.current, -0.2, 0, ...size.current)),
    'Shift+ArrowRight': () => move(camera.pan(look.current, 0.2, 0, ...size.current)),
    'Shift+ArrowUp': () => move(camera.pan(look.current, 0, 0.2, ...size.current)),
    'Shift+ArrowDown': () => move(camera.pan(look.current, 0, -0.2, ...size.current)),
    '+': () => center(STEP),
    '=': () => center(STEP),
    '-': () => center(1 / STEP),
    '0': () => move(camera.whole(...size.current)),
    Enter: () => cursor.current && onPick(...cursor.current),
    ' ': () => cursor.current && onPick(...cursor.current),
    Escape: leave
  };

  function onKeyDown(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    const arrow = event.key.startsWith('Arrow');
    const act = keys[arrow && event.shiftKey ? `Shift+${event.key}` : event.key];
    if (act) {
      event.preventDefault();
      act();
    }
  }

  const help = useMemo(() => `mce-help-${Math.random().toString(36).slice(2)}`, []);
  return (
    <>
      <div class="mce-tools">
        {children}
        <div class="mce-zoom">
          <button
            type="button"
            title="Zoom in (+)"
            aria-label="Zoom in"
            onClick={() => center(STEP * STEP)}
          >
            <svg viewBox="0 0 16 16" aria-hidden="true">
              <path d="M8 3.5v9M3.5 8h9" />
            </svg>
          </button>
          <button
            type="button"
            title="Zoom out (-)"
            aria-label="Zoom out"
            disabled={!near}
            onClick={() => center(1 / (STEP * STEP))}
          >
            <svg viewBox="0 0 16 16" aria-hidden="true">
              <path d="M3.5 8h9" />
            </svg>
          </button>
          <button
            type="button"
            title="Show all (0)"
            aria-label="Show all"
            disabled={!near}
            onClick={() => move(camera.whole(...size.current))}
          >
            <svg viewBox="0 0 16 16" aria-hidden="true">
              <path d="M3 6V3h3M10 3h3v3M13 10v3h-3M6 13H3v-3" />
            </svg>
          </button>
        </div>
      </div>
      <div class={y ? 'mce-map' : 'mce-map mce-strip'}>
        <canvas
          ref={canvas}
          tabIndex={0}
          role="img"
          aria-label={`Status of the points over ${x.name}${y ? ` and ${y.name}` : ''}. ${summary}`}
          aria-describedby={help}
          onPointerDown={onPointerDown}
          onPointerMove={onPointerMove}
          onPointerUp={onPointerUp}
          onPointerCancel={() => (press.current = null)}
          onPointerLeave={() => !press.current && leave()}
          onKeyDown={onKeyDown}
          onFocus={() => {
            focused.current = true;
            redraw();
          }}
          onBlur={() => {
            focused.current = false;
            leave();
          }}
        />
        <p id={help} class="mce-hidden">
          Arrow keys go from cell to cell and Enter opens one. Plus and minus zoom, shift and arrows
          pan, zero shows all.
        </p>
        {tip && <Tooltip tip={tip} />}
        <div class="mce-hidden" aria-live="polite">
          {spoken}
        </div>
        {problem && (
          <p class="mce-error" role="alert">
            {problem}
          </p>
        )}
        {data.bin[0] * data.bin[1] > 1 && (
          <p class="mce-note">
            One cell stands for {integer(data.bin[0] * data.bin[1])} points or more; failures always
            show.
          </p>
        )}
      </div>
    </>
  );
}

/** What this page last looked at on such a map; all of it on another one. */
function remembered({ part }: Look, axes: string, { width, height }: Data): camera.Camera {
  const same = part?.axes === axes && part.width === width && part.height === height;
  return same ? part.camera : camera.whole(width, height);
}

function Tooltip({ tip }: { tip: Tip }) {
  const element = useRef<HTMLDivElement>(null);
  // Above and beside the cell, on whichever side there is room.
  useEffect(() => {
    const node = element.current!;
    const box = node.parentElement!;
    const left =
      tip.x + 12 + node.offsetWidth > box.clientWidth ? tip.x - 12 - node.offsetWidth : tip.x + 12;
    const top = tip.y - 12 - node.offsetHeight < 0 ? tip.y + 12 : tip.y - 12 - node.offsetHeight;
    node.style.left = `${Math.max(left, 0)}px`;
    node.style.top = `${top}px`;
    node.style.visibility = 'visible';
  });
  return (
    <div class="mce-tip" ref={element} aria-hidden="true" style={{ visibility: 'hidden' }}>
      {tip.lines.map(([name, label]) => (
        <div key={name}>
          <span class="mce-faint">{name}</span> {label}
        </div>
      ))}
      <strong>{tip.status}</strong>
    </div>
  );
}
