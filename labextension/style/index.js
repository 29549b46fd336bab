import './view.css';
import './panel.css';
import './cell.css';
