/** Answers of a server as state. */

import { useEffect, useRef, useState } from 'preact/hooks';

import { told } from './transport';

export interface Answer<T> {
  value: T | null;
  error: string;
  loading: boolean;
}

/** Ask whenever `question` changes; the last answer stays until the next one is there. */
export function useAnswer<T>(question: string, ask: () => Promise<T>): Answer<T> {
  const [answer, setAnswer] = useState<Answer<T>>({ value: null, error: '', loading: true });
  const asked = useRef('');
  useEffect(() => {
    let current = true;
    // Another question's answer must not stand under this one.
    const same = asked.current.split('\n')[0] === question.split('\n')[0];
    asked.current = question;
    setAnswer(before => ({ value: same ? before.value : null, error: '', loading: true }));
    ask().then(
      value => current && setAnswer({ value, error: '', loading: false }),
      (error: unknown) =>
        current &&
        setAnswer(before => ({ value: before.value, error: told(error), loading: false }))
    );
    return () => {
      current = false;
    };
  }, [question]);
  return answer;
}
